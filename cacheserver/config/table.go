package config

import (
	"github.com/spf13/pflag"
)

// Group is for which commands a setting is: a set.
type Group uint

// The groups.
const (
	Serving    Group = 1 << iota // serve alone
	Engines                      // all that open packs and index
	Collection                   // all that collect
	Tokens                       // all that make or check tokens
)

// All is every group.
const All = Serving | Engines | Collection | Tokens

// Setting is one thing that can be set: by a flag of its name, by an environment
// variable, and by a key in the file, both of which the name gives, too.
type Setting struct {
	Name     string // of the flag, without dashes
	Help     string // as pflag wants it
	Group    Group
	Variable string // that sets it, too, by a name that deployments use
	Value    pflag.Value
	Short    string // of the flag
	// Secret: it is never shown and has no flag, for other users of a machine see
	// the arguments of commands. mask does that to a part of a value.
	Secret bool
	mask   func(string) string

	flag   *pflag.Flag
	origin string
}

// section is what stands together in the example file.
type section struct {
	title    string
	settings []*Setting
}

// table is every setting there is: flags, variables, keys, help and the example
// file all come from it.
func (s *Settings) table() []section {
	c := &s.Server
	return []section{
		{"Where the server listens, and what it tells clients.", []*Setting{
			{Name: "listen", Group: Serving, Value: checked(&s.Listen, checkAddress), Help: "`address` to listen on; port 0 takes a free one"},
			{Name: "grpc-listen", Group: Serving, Value: checked(&s.GRPCListen, checkAddress), Help: "`address` to answer gRPC alone on; --listen answers it, too"},
			{Name: "public-url", Group: Serving, Value: checked(&c.PublicURL, checkURL), Help: "`URL` where clients reach the server (default as their requests say)"},
			{Name: "store-dir", Group: Serving, Value: checked(&c.StoreDir, CheckStoreDir), Help: "the clients' store `directory`"},
			{Name: "auth", Group: Serving | Tokens, Value: text(&s.AuthFile), Help: "TOML `file` whose table [auth] says who may do what (default everyone everything)"},
		}},
		{"Where the data is.", []*Setting{
			{Name: "data", Group: Engines, Value: text(&c.Data), Help: "`directory` for packs, index and caches"},
			{Name: "storage", Group: Engines, Value: text(&c.Storage), mask: withoutPassword, Help: "where packs are: a directory or s3://bucket/prefix (default in --data)"},
			{Name: "index", Group: Engines, Value: text(&c.Index), mask: withoutPassword, Help: "where the index is: a file or postgres://… (default in --data)"},
			{Name: "s3-endpoint", Group: Engines, Value: checked(&c.S3.Endpoint, checkEndpoint), Variable: "S3_ENDPOINT", Help: "`URL` of the S3 service, such as https://minio.example.org:9000 (default AWS)"},
			{Name: "s3-bucket", Group: Engines, Value: text(&c.S3.Bucket), Variable: "S3_BUCKET_NAME", Help: "bucket of --storage s3://"},
			{Name: "s3-region", Group: Engines, Value: text(&c.S3.Region), Variable: "S3_REGION", Help: "region of the bucket (default as the service says)"},
			{Name: "s3-path-style", Group: Engines, Value: boolean(&c.S3.PathStyle), Help: "name the bucket in the path rather than in the host"},
			{Name: "s3-ca-file", Group: Engines, Value: text(&c.S3.CAFile), Help: "PEM `file` with the certificate authority of the S3 service"},
			{Name: "s3-access-key-id", Group: Engines, Value: text(&c.S3.AccessKeyID), Variable: "S3_ACCESS_KEY_ID", Secret: true, Help: "ID of the access key (default the machine's own role)"},
			{Name: "s3-secret-access-key", Group: Engines, Value: text(&c.S3.SecretAccessKey), Variable: "S3_SECRET_ACCESS_KEY", Secret: true, Help: "secret of the access key"},
			{Name: "s3-redirect", Group: Serving, Value: boolean(&c.Redirect), Help: "send clients to S3 itself for NARs that are all that their pack holds"},
			{Name: "pack-cache", Group: Serving, Value: Size(&c.PackCache), Help: "how much of the packs on S3 is kept in --data as well; 0 for none"},
		}},
		{"What is kept, and for how long.", []*Setting{
			{Name: "retention", Group: Serving | Collection, Value: retention(&c.Policy.Retention), Help: "how long paths live after their last use in caches that do not say otherwise; off for ever"},
			{Name: "bazel-retention", Group: Serving | Collection, Value: keptFor(&c.Policy.HoldTime), Help: "how long Bazel's blobs and action results live after their last use; more than three times the grace where --max-size is to evict some; the same for all servers of an index"},
			{Name: "max-size", Group: Serving | Collection, Value: Size(&c.Policy.MaxSize), Help: "how much the packs may take, such as 200GB (default no limit)"},
			{Name: "gc-interval", Group: Serving, Value: duration(&c.CollectEvery), Help: "how often to collect; 0 for never"},
			{Name: "grace", Group: Engines, Value: duration(&c.Policy.Grace), Help: "how long uploads in flight are left alone by collection; the same for all servers of an index"},
		}},
		{"What clients may take of the server, and how it stops.", []*Setting{
			{Name: "max-header-size", Group: Serving, Value: Size(&c.Limits.HeaderBytes), Help: "how long a request's headers may be"},
			{Name: "header-time", Group: Serving, Value: duration(&c.Limits.HeaderTime), Help: "how long a request's headers may take to come"},
			{Name: "idle-time", Group: Serving, Value: duration(&c.Limits.IdleTime), Help: "how long a connection may do nothing"},
			{Name: "max-uploads", Group: Serving, Value: count(&c.Limits.Uploads, 1), Help: "how many uploads, of whatever protocol, are worked on at a time; others wait"},
			{Name: "drain-delay", Group: Serving, Value: duration(&c.Drain.Delay), Help: "how long to go on serving after SIGTERM, so that load balancers see that /readyz says no"},
			{Name: "drain-time", Group: Serving, Value: duration(&c.Drain.Time), Help: "how long requests under way may take to end then"},
		}},
		{"Logs, on stderr.", []*Setting{
			{Name: "log-level", Group: Serving, Value: level(&s.LogLevel), Help: "debug (a line for each request), info, warn or error"},
			{Name: "log-format", Group: Serving, Value: oneOf(&s.LogFormat, Text, JSON), Help: "text or json"},
			{Name: "verbose", Group: Serving, Value: boolean(&s.Verbose), Short: "v", Help: "log every request: --log-level debug"},
		}},
	}
}
