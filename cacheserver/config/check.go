package config

import (
	"net"
	"strings"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// check looks at settings together, of those that are in use.
func (s *Settings) check() Faults {
	var faults Faults
	clash := func(name, reason string) {
		if x := s.setting(name); x.Group&s.used != 0 {
			faults = append(faults, s.faultOf(x, reason))
		}
	}
	c := &s.Server
	onS3 := strings.HasPrefix(c.Storage, "s3://")
	switch scheme, _, isURL := strings.Cut(c.Storage, "://"); {
	case onS3:
		bucket, _, err := packstore.ParseS3URL(c.Storage)
		switch {
		case err != nil:
			clash("storage", err.Error())
		case bucket == "" && c.S3.Bucket == "":
			clash("storage", "it names no bucket: want s3://bucket/prefix, or S3_BUCKET_NAME in the environment")
		}
	case isURL:
		clash("storage", "packs are in a directory or in s3://…, not "+scheme+"://…")
	}
	switch scheme, _, isURL := strings.Cut(c.Index, "://"); {
	case isURL && scheme != "postgres" && scheme != "postgresql":
		clash("index", "an index is postgres://… or a file, not "+scheme+"://…")
	}
	if c.Redirect && !onS3 {
		clash("s3-redirect", "the packs are not on S3: set storage to s3://bucket as well")
	}
	if (c.S3.AccessKeyID == "") != (c.S3.SecretAccessKey == "") && onS3 {
		name, other := "s3-access-key-id", "s3_secret_access_key"
		if c.S3.AccessKeyID == "" {
			name, other = "s3-secret-access-key", "s3_access_key_id"
		}
		clash(name, "it is of no use without "+other)
	}
	if _, port, err := net.SplitHostPort(s.GRPCListen); err == nil && port != "0" && s.GRPCListen == s.Listen {
		clash("grpc-listen", "it is the address of listen, which answers gRPC, too: leave it out, or choose another")
	}
	return faults
}

func (s *Settings) setting(name string) *Setting {
	for _, x := range s.all() {
		if x.Name == name {
			return x
		}
	}
	return nil
}

// faultOf says where a setting comes from.
func (s *Settings) faultOf(x *Setting, reason string) *Fault {
	if s.doc != nil && strings.HasPrefix(x.origin, s.doc.name+":") {
		return &Fault{File: s.doc.name, Line: s.doc.line(x.key()), Key: x.key(), Reason: reason}
	}
	if x.origin == "" {
		return &Fault{Key: "--" + x.Name, Reason: reason}
	}
	return &Fault{Key: x.origin, Reason: reason}
}
