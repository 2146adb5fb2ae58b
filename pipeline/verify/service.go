package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/check"
)

const (
	// What issues certificates renews them a third of their time before they
	// end: with ACME, 30 days. A week is when someone must look.
	certificateLeft = 7 * 24 * time.Hour
	certificateLate = 21 * 24 * time.Hour

	latencyRequests = 21 // an odd number, so that one is in the middle
	// maxMessage bounds an answer of gRPC, in bytes.
	maxMessage = 64 << 10
)

// certificate says how long the certificate is valid that clients are shown.
func (c *cache) certificate(ctx context.Context) (string, error) {
	if c.base.Scheme != "https" {
		return "", fmt.Errorf("%w: the URL is http://", check.ErrSkip)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(cacheInfoName).String(), nil)
	if err != nil {
		return "", fmt.Errorf("asking for the certificate: %w", err)
	}
	c.sign(req)
	resp, err := c.client.Do(req)
	if err != nil {
		return "", transportFault(ctx, err)
	}
	defer resp.Body.Close()
	if resp.TLS == nil || len(resp.TLS.PeerCertificates) == 0 {
		return "", &fault{reason: "the answer came without TLS", look: lookAtRoute, final: true}
	}
	ends := slices.MinFunc(chain(resp.TLS), time.Time.Compare)
	left := ends.Sub(c.wait.clock.Now())
	found := fmt.Sprintf("the certificate ends on %s, in %d days", ends.UTC().Format(time.DateOnly), int(left.Hours()/24))
	switch {
	case left < certificateLeft:
		return "", &fault{reason: found, look: "why it is not renewed: kubectl get certificates,challenges --all-namespaces", final: true}
	case left < certificateLate:
		found += "; its renewal is late"
	}
	return found, nil
}

// chain are the ends of the certificates of a connection.
func chain(state *tls.ConnectionState) []time.Time {
	ends := make([]time.Time, len(state.PeerCertificates))
	for i, certificate := range state.PeerCertificates {
		ends[i] = certificate.NotAfter
	}
	return ends
}

// bazel asks what Bazel asks first.
func (c *cache) bazel(ctx context.Context) (string, error) {
	address, transport, err := grpcTarget(c.grpc, c.base)
	if err != nil {
		return "", err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)), grpc.WithUserAgent("flywheel-verify"))
	if err != nil {
		return "", fmt.Errorf("connecting to %s: %w", address, err)
	}
	defer func() { _ = conn.Close() }()
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	said, err := repb.NewCapabilitiesClient(conn).GetCapabilities(ctx, &repb.GetCapabilitiesRequest{InstanceName: strings.Trim(c.base.Path, "/")})
	if err != nil {
		reason := fmt.Sprintf("%s: %s", address, oneLine(status.Convert(err).Message()))
		switch code := status.Code(err); {
		case c.grpc != "":
		case code == codes.Unauthenticated || code == codes.PermissionDenied:
			return "", fmt.Errorf("%w: gRPC answers, and nothing was found out for want of rights: %s", check.ErrSkip, reason)
		default:
			// HTTP and gRPC often have names of their own behind a gateway.
			return "", fmt.Errorf("%w: no gRPC at the URL's host (%s); say where it is with --grpc", check.ErrSkip, reason)
		}
		return "", &fault{reason: reason, look: "the GRPCRoute, and whether HTTP/2 reaches the server: kubectl -n NAMESPACE get grpcroutes,services; " + lookAtPods}
	}
	functions := said.GetCacheCapabilities().GetDigestFunctions()
	if !slices.Contains(functions, repb.DigestFunction_SHA256) {
		return "", &fault{reason: fmt.Sprintf("%s: SHA-256 is none of its digest functions: %v", address, functions), look: lookAtURL, final: true}
	}
	return fmt.Sprintf("%s takes %v", address, functions), nil
}

// grpcTarget is where gRPC is: as said (grpc:// or grpcs://), or at the cache's
// own host.
func grpcTarget(said string, base *url.URL) (string, credentials.TransportCredentials, error) {
	u := &url.URL{Scheme: strings.Replace(base.Scheme, "http", "grpc", 1), Host: base.Host}
	if said != "" {
		var err error
		if u, err = url.Parse(said); err != nil {
			return "", nil, fmt.Errorf("gRPC address: %w", err)
		}
		if u.Scheme != "grpc" && u.Scheme != "grpcs" || u.Host == "" {
			return "", nil, fmt.Errorf("gRPC address %q: want grpcs://HOST[:PORT] or grpc://…", said)
		}
	}
	port := u.Port()
	if u.Scheme == "grpc" {
		if port == "" {
			port = "80"
		}
		return net.JoinHostPort(u.Hostname(), port), insecure.NewCredentials(), nil
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), nil
}

// latency is what a lookup takes on a connection that is there already, as those
// of a build are.
func (c *cache) latency(ctx context.Context) (string, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	defer transport.CloseIdleConnections()
	quick := *c
	quick.client = &http.Client{Transport: transport}
	took := make([]time.Duration, 0, latencyRequests)
	for range latencyRequests + 1 {
		began := time.Now()
		if _, err := quick.get(ctx, cacheInfoName, maxCacheInfo); err != nil {
			return "", err
		}
		took = append(took, time.Since(began))
	}
	took = took[1:] // the first one connected
	slices.Sort(took)
	median, slowest := took[len(took)/2], took[len(took)-1]
	found := fmt.Sprintf("p50 %v, slowest %v of %d requests", median.Round(10*time.Microsecond), slowest.Round(10*time.Microsecond), len(took))
	if c.maxLatency > 0 && median > c.maxLatency {
		return "", &fault{reason: fmt.Sprintf("%s; p50 is above %v", found, c.maxLatency), look: "the replicas' CPU and the database's: kubectl -n NAMESPACE top pods; CacheServerAtMaximum"}
	}
	return found, nil
}

// parsed is a reference within the cache. What is no URL becomes one that is not
// found.
func parsed(name string) *url.URL {
	u, err := url.Parse(name)
	if err != nil {
		return &url.URL{Path: name}
	}
	return u
}

// errUnhealthy is why nothing more is asked of a cache that does not answer.
var errUnhealthy = errors.New("the cache does not answer as one")
