package packstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// awsEndpoint stands for AWS as a whole: the client turns it into the bucket's
// own region's.
const awsEndpoint = "https://s3.amazonaws.com"

// S3Config says where packs are kept in S3, and with whose rights.
type S3Config struct {
	// Endpoint is "host:port", which is asked over TLS, or a URL of the scheme
	// http or https without a path. Empty is AWS.
	Endpoint string
	Bucket   string
	// Prefix is what the keys of all objects begin with, up to a "/" that need
	// not be given. Empty: the bucket is ours alone.
	Prefix string
	// Region is asked of the endpoint when it is empty.
	Region string
	// PathStyle puts the bucket into the path of AWS's URLs, too, as it is always
	// with other endpoints.
	PathStyle bool

	// AccessKeyID and SecretAccessKey are taken from the surroundings when both
	// are empty, the first that has any: AWS_ACCESS_KEY_ID and
	// AWS_SECRET_ACCESS_KEY, the web identity of a Kubernetes pod, the
	// credentials of a container, those of the machine's role.
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // only with temporary keys

	// CAFile is a PEM file of certificates to trust beside the system's.
	CAFile string
}

// ParseS3URL splits s3://bucket or s3://bucket/prefix. The bucket of s3:///prefix
// is empty.
func ParseS3URL(s string) (bucket, prefix string, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", "", fmt.Errorf("the S3 location: %w", err)
	}
	if u.Scheme != "s3" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", "", fmt.Errorf("the S3 location %q: want s3://bucket or s3://bucket/prefix", u.Redacted())
	}
	if u.Host != "" {
		if err := checkBucket(u.Host); err != nil {
			return "", "", err
		}
	}
	return u.Host, strings.Trim(u.Path, "/"), checkPrefix(u.Path)
}

func (c S3Config) check() error {
	if (c.AccessKeyID == "") != (c.SecretAccessKey == "") {
		return errors.New("S3: of the access key's ID and its secret only one is given")
	}
	return errors.Join(checkBucket(c.Bucket), checkPrefix(c.Prefix))
}

func checkBucket(name string) error {
	if err := s3utils.CheckValidBucketNameStrict(name); err != nil {
		return fmt.Errorf("the S3 bucket %q: %w", name, err)
	}
	return nil
}

func checkPrefix(prefix string) error {
	if p := strings.Trim(prefix, "/"); p != "" && (path.Clean("/"+p) != "/"+p || !isPrintable(p)) {
		return fmt.Errorf(`the S3 prefix %q: want names with "/" between them, none of them empty, "." or ".."`, prefix)
	}
	return nil
}

// isPrintable tells names that every S3 server takes and lists as they are.
func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }) < 0
}

func (c S3Config) endpointURL() (*url.URL, error) {
	s := c.Endpoint
	switch {
	case s == "":
		s = awsEndpoint
	case !strings.Contains(s, "://"):
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("the S3 endpoint: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("the S3 endpoint %q: want host:port, http://host:port or https://host:port", u.Redacted())
	}
	return u, nil
}

// patience is how long S3 waits.
type patience struct {
	connect time.Duration
	// answer is for an answer's first byte, all tries together, and for any
	// byte, in either direction, after the one before it.
	answer time.Duration
	// slowest is the rate, in bytes a second, that a pack's time to be written
	// is reckoned by.
	slowest int64
}

var defaultPatience = patience{connect: 5 * time.Second, answer: 30 * time.Second, slowest: 256 << 10}

// clients returns two of them over one transport: reads tries again by itself,
// writes does not.
func (c S3Config) clients(endpoint *url.URL, p patience) (reads, writes *minio.Client, err error) {
	transport := &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: dialWatched(p),
		// Idle connections end before the watch over them does: one that is
		// taken from the pool has the whole time before it.
		IdleConnTimeout:     p.answer / 2,
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}
	if c.CAFile != "" {
		pool, err := trusted(c.CAFile)
		if err != nil {
			return nil, nil, err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	opts := minio.Options{
		Creds:      c.credentials(),
		Secure:     endpoint.Scheme == "https",
		Transport:  transport,
		Region:     c.Region,
		MaxRetries: tries,
	}
	if c.PathStyle {
		opts.BucketLookup = minio.BucketLookupPath
	}
	if reads, err = minio.New(endpoint.Host, &opts); err != nil {
		return nil, nil, fmt.Errorf("the S3 endpoint %s: %w", endpoint.Redacted(), err)
	}
	opts.MaxRetries = 1
	if writes, err = minio.New(endpoint.Host, &opts); err != nil {
		return nil, nil, fmt.Errorf("the S3 endpoint %s: %w", endpoint.Redacted(), err)
	}
	return reads, writes, nil
}

func trusted(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificates: %w", err)
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the certificates to trust for S3: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in PEM in it", file)
	}
	return pool, nil
}

// dialWatched returns connections that break when nothing moves on them for a
// while: a peer that vanished without a word would hold up a body for ever.
func dialWatched(p patience) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: p.connect}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return watched{c, p.answer}, nil
	}
}

// watched puts off the deadline with every byte that moves, for both
// directions: while a request is being written, net/http waits for its answer.
type watched struct {
	net.Conn
	limit time.Duration
}

func (w watched) Read(b []byte) (int, error) {
	if err := w.SetDeadline(time.Now().Add(w.limit)); err != nil {
		return 0, err
	}
	return w.Conn.Read(b)
}

func (w watched) Write(b []byte) (int, error) {
	if err := w.SetDeadline(time.Now().Add(w.limit)); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

func (c S3Config) credentials() *credentials.Credentials {
	if c.AccessKeyID != "" {
		return credentials.NewStaticV4(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
	}
	providers := []credentials.Provider{&credentials.EnvAWS{}}
	identity := os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "" ||
		os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" ||
		os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != ""
	if identity || !strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		providers = append(providers, &credentials.IAM{})
	}
	return credentials.New(&surroundings{providers: providers, known: identity})
}

// errNoCredentials is for surroundings that have none to give.
var errNoCredentials = errors.New("there are no credentials: give an access key's ID and secret " +
	"(S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or give the machine or pod a role")

// surroundings asks providers in turn. The client library's own chain goes on
// without credentials when there are none, and so asks as anonymous.
type surroundings struct {
	providers []credentials.Provider
	// known is whether there must be credentials: failing to get them is then a
	// failure of those who give them.
	known   bool
	current credentials.Provider
}

func (s *surroundings) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	var failed error
	for _, p := range s.providers {
		v, err := p.RetrieveWithCredContext(cc)
		if err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "" {
			s.current, s.known = p, true
			return v, nil
		}
		failed = errors.Join(failed, err)
	}
	switch {
	case !s.known && failed == nil:
		return credentials.Value{}, errNoCredentials
	case !s.known:
		return credentials.Value{}, fmt.Errorf("%w: %w", errNoCredentials, failed)
	case failed == nil:
		failed = errors.New("none are set any more")
	}
	return credentials.Value{}, fmt.Errorf("getting credentials: %w", failed)
}

func (s *surroundings) Retrieve() (credentials.Value, error) {
	return s.RetrieveWithCredContext(&credentials.CredContext{Client: http.DefaultClient})
}

func (s *surroundings) IsExpired() bool { return s.current == nil || s.current.IsExpired() }
