package bazel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
)

// Cache is what a remote cache has said of itself.
type Cache struct {
	// Remote is the value of --remote_cache: grpc://, grpcs://, http:// or https://.
	Remote string
	// Instance is the name under which a gRPC cache keeps the results of actions.
	// HTTP's is a part of Remote.
	Instance string
	// Writable is false when the cache says that the caller's results are not taken.
	Writable bool
	// Zstd is true when blobs may be sent compressed. Bazel has that for gRPC only.
	Zstd bool
}

// DeniedError is a cache that does not let the caller in.
type DeniedError struct {
	URL   string
	Shown bool // a token was shown
}

func (e *DeniedError) Error() string {
	if e.Shown {
		return fmt.Sprintf("the cache %s does not take the token: is %s, or the one in netrc, for this cache, and has it not ended? (cacheserver token inspect)", e.URL, credential.TokenVariable)
	}
	return fmt.Sprintf("the cache %s wants a token: set %s", e.URL, credential.TokenVariable)
}

// probeTime is how long a cache may take to answer one way of asking.
const probeTime = 5 * time.Second

// emptySHA256 names the blob that every cache of the Remote Execution API has.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// CheckURL says what is wrong with a cache's URL.
func CheckURL(text string) error {
	_, err := parseURL(text)
	return err
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("cache URL: %w", err)
	}
	if !slices.Contains([]string{"grpc", "grpcs", "http", "https"}, u.Scheme) || u.Host == "" {
		return nil, fmt.Errorf("cache URL %q: want http://HOST[:PORT][/INSTANCE], https://…, grpc://… or grpcs://…", u.Redacted())
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("cache URL %q: it may have a host, a port and an instance's name only", u.Redacted())
	}
	u.Path = strings.Trim(u.Path, "/")
	return u, nil
}

// Probe asks the cache at a URL what it speaks. http and https are asked for gRPC
// on the same port first, which is what Bazel is faster with, and are used as HTTP
// caches otherwise. The URL's path is the instance's name.
//
// A cache that wants another token is a *DeniedError.
func Probe(ctx context.Context, text, token string) (Cache, error) {
	u, err := parseURL(text)
	if err != nil {
		return Cache{}, err
	}
	secure := u.Scheme == "grpcs" || u.Scheme == "https"
	c, grpcErr := probeGRPC(ctx, u, secure, token)
	if grpcErr == nil {
		return c, nil
	}
	var denied *DeniedError
	if errors.As(grpcErr, &denied) || strings.HasPrefix(u.Scheme, "grpc") {
		return Cache{}, grpcErr
	}
	return probeHTTP(ctx, u, token)
}

func probeGRPC(ctx context.Context, u *url.URL, secure bool, token string) (_ Cache, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	scheme, port, creds := "grpc", "80", insecure.NewCredentials()
	if secure {
		scheme, port, creds = "grpcs", "443", credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	if u.Port() != "" {
		port = u.Port()
	}
	address := net.JoinHostPort(u.Hostname(), port)
	conn, err := grpc.NewClient("dns:///"+address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return Cache{}, fmt.Errorf("cache %s: %w", u, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	caps, err := repb.NewCapabilitiesClient(conn).GetCapabilities(ctx, &repb.GetCapabilitiesRequest{InstanceName: u.Path})
	switch status.Code(err) {
	case codes.OK:
	case codes.Unauthenticated, codes.PermissionDenied:
		return Cache{}, &DeniedError{u.String(), token != ""}
	default:
		return Cache{}, fmt.Errorf("the cache %s does not answer: %s", u, strings.TrimSpace(status.Convert(err).Message()))
	}
	cache := caps.GetCacheCapabilities()
	if !slices.Contains(cache.GetDigestFunctions(), repb.DigestFunction_SHA256) {
		return Cache{}, fmt.Errorf("%s is no cache for Bazel: it does not name blobs by SHA-256", u)
	}
	return Cache{
		// Without a port, Bazel would take one that is no scheme's own.
		Remote:   scheme + "://" + address,
		Instance: u.Path,
		Writable: cache.GetActionCacheUpdateCapabilities().GetUpdateEnabled(),
		Zstd:     slices.Contains(cache.GetSupportedCompressors(), repb.Compressor_ZSTD),
	}, nil
}

func probeHTTP(ctx context.Context, u *url.URL, token string) (Cache, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath("cas", emptySHA256).String(), http.NoBody)
	if err != nil {
		return Cache{}, fmt.Errorf("cache %s: %w", u, err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Cache{}, fmt.Errorf("the cache %s does not answer: %w", u, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return Cache{}, &DeniedError{u.String(), token != ""}
	case http.StatusNotFound:
		// Of a plain file server that takes PUT, which is a cache as well.
	case http.StatusOK, http.StatusNoContent:
		if n, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1)); err != nil || n > 0 {
			return Cache{}, fmt.Errorf("%s is no cache for Bazel: the blob that is empty is not", u)
		}
	default:
		return Cache{}, fmt.Errorf("the cache %s answers HTTP %s", u, resp.Status)
	}
	return Cache{Remote: strings.TrimSuffix(u.String(), "/"), Writable: true}, nil
}
