package packstore_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/s3test"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

func TestWhatIsWrongWithTheBucketIsSaid(t *testing.T) {
	t.Parallel()
	server := s3test.Versitygw(t)
	good := config(t, server)
	for says, change := range map[string]func(c *packstore.S3Config){
		"create it":                 func(c *packstore.S3Config) { c.Bucket = "no-such-bucket" },
		"check the access key":      func(c *packstore.S3Config) { c.SecretAccessKey = "wrong" },
		"check the access key's ID": func(c *packstore.S3Config) { c.AccessKeyID = "wrong" },
		"http://":                   func(c *packstore.S3Config) { c.Endpoint = strings.Replace(c.Endpoint, "http:", "https:", 1) },
		"want host:port":            func(c *packstore.S3Config) { c.Endpoint += "/path" },
		"region":                    func(c *packstore.S3Config) { c.Region = "eu-north-7" },
		"only one":                  func(c *packstore.S3Config) { c.SecretAccessKey = "" },
		"prefix":                    func(c *packstore.S3Config) { c.Prefix = "a/../b" },
		"Bucket name":               func(c *packstore.S3Config) { c.Bucket = "" },
		"certificates":              func(c *packstore.S3Config) { c.CAFile = "/nonexistent" },
	} {
		c := good
		change(&c)
		_, err := packstore.OpenS3(t.Context(), c)
		if err == nil || errors.Is(err, packstore.ErrUnavailable) || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v; want an error that says %q and is not ErrUnavailable", err, says)
		}
		if err != nil && strings.Contains(err.Error(), good.SecretAccessKey) {
			t.Errorf("%v tells the secret", err)
		}
	}
}

func TestEachRefusalIsTheErrorItMeans(t *testing.T) {
	t.Parallel()
	type refusal struct {
		status int
		code   string
	}
	var answer atomic.Pointer[refusal]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		a := answer.Load()
		w.WriteHeader(a.status)
		fmt.Fprintf(w, `<Error><Code>%s</Code><Message>because</Message></Error>`, a.code)
	}))
	defer server.Close()
	s, err := packstore.NewS3(packstore.S3Config{Endpoint: server.URL, Bucket: "packs", Region: "r", AccessKeyID: "id", SecretAccessKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	kinds := []error{packstore.ErrNotFound, packstore.ErrExists, packstore.ErrNoSpace, packstore.ErrUnavailable, io.ErrUnexpectedEOF}
	for a, want := range map[refusal]error{
		{404, "NoSuchKey"}:                      packstore.ErrNotFound,
		{404, "NoSuchBucket"}:                   nil,
		{403, "AccessDenied"}:                   nil,
		{400, "InvalidArgument"}:                nil,
		{416, "InvalidRange"}:                   io.ErrUnexpectedEOF,
		{412, "PreconditionFailed"}:             packstore.ErrExists,
		{507, "XMinioStorageFull"}:              packstore.ErrNoSpace,
		{507, "InsufficientStorage"}:            packstore.ErrNoSpace,
		{507, "Whatever"}:                       packstore.ErrNoSpace,
		{403, "QuotaExceeded"}:                  packstore.ErrNoSpace,
		{400, "XMinioAdminBucketQuotaExceeded"}: packstore.ErrNoSpace,
		{503, "SlowDown"}:                       packstore.ErrUnavailable,
		{500, "InternalError"}:                  packstore.ErrUnavailable,
		{502, "Whatever"}:                       packstore.ErrUnavailable,
		{429, "Whatever"}:                       packstore.ErrUnavailable,
		{400, "ExpiredToken"}:                   packstore.ErrUnavailable,
		{409, "ConditionalRequestConflict"}:     packstore.ErrUnavailable,
		{501, "NotImplemented"}:                 nil,
	} {
		t.Run(a.code, func(t *testing.T) {
			answer.Store(&a)
			_, err := s.Open(t.Context(), "a", 0, 1)
			if err == nil {
				t.Fatal("no error")
			}
			for _, kind := range kinds {
				if errors.Is(err, kind) != (kind == want) {
					t.Errorf("%d %s: %v; is it %q: %v", a.status, a.code, err, kind, errors.Is(err, kind))
				}
			}
		})
	}
}

func TestACertificateIsTrustedByItsFile(t *testing.T) {
	t.Parallel()
	server := s3test.Versitygw(t)
	c := config(t, server)
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	tls := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
		r.Out.Host = r.In.Host
	}})
	defer tls.Close()
	c.Endpoint = strings.TrimPrefix(tls.URL, "https://") // which is what no scheme means
	if _, err := packstore.OpenS3(t.Context(), c); err == nil || errors.Is(err, packstore.ErrUnavailable) || !strings.Contains(err.Error(), "CA") {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}
	c.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openS3(t, c)
	put(t, s, "a", "12345")
	want(t, s, "a", []byte("12345"), 0, 5)
}

func TestKeysComeFromTheSurroundingsOrNotAtAll(t *testing.T) {
	server := s3test.Versitygw(t)
	c := config(t, server)
	c.AccessKeyID, c.SecretAccessKey = "", ""
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	_, err := packstore.OpenS3(t.Context(), c)
	if err == nil || errors.Is(err, packstore.ErrUnavailable) || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("without any keys: %v; want an error that says where they may come from", err)
	}

	var container atomic.Bool
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !container.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"AccessKeyId": %q, "SecretAccessKey": %q, "Expiration": %q}`,
			server.AccessKey, server.SecretKey, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer metadata.Close()
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", metadata.URL)
	if _, err := packstore.OpenS3(t.Context(), c); !errors.Is(err, packstore.ErrUnavailable) {
		t.Errorf("a container's credentials that cannot be had now: %v, want ErrUnavailable", err)
	}
	container.Store(true)
	put(t, openS3(t, c), "a", "12345")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")

	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	want(t, openS3(t, c), "a", []byte("12345"), 0, 5)
}

func TestParseS3URL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"s3://packs":            {"packs", ""},
		"s3://packs/":           {"packs", ""},
		"s3://packs/nix/cache/": {"packs", "nix/cache"},
		"s3:///nix":             {"", "nix"},
	} {
		bucket, prefix, err := packstore.ParseS3URL(in)
		if got := [2]string{bucket, prefix}; got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "packs", "http://packs", "s3://UPPER", "s3://a", "s3://packs/a//b", "s3://packs/../b", "s3://packs/a%20b",
		"s3://key:secret@packs", "s3://packs?region=x", "s3://packs#x",
	} {
		_, _, err := packstore.ParseS3URL(in)
		if err == nil {
			t.Errorf("%s: no error", in)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v tells the secret", err)
		}
	}
}
