package packstore_test

import (
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/s3test"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore/packstoretest"
)

func config(t *testing.T, server *s3test.Server) packstore.S3Config {
	t.Helper()
	return packstore.S3Config{
		Endpoint:        server.Endpoint,
		Bucket:          server.NewBucket(t),
		Prefix:          "nix/cache",
		AccessKeyID:     server.AccessKey,
		SecretAccessKey: server.SecretKey,
	}
}

func openS3(t *testing.T, c packstore.S3Config) *packstore.S3 {
	t.Helper()
	s, err := packstore.OpenS3(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func s3Conformance(t *testing.T, server *s3test.Server) {
	t.Helper()
	packstoretest.Run(t, func(t *testing.T) (packstore.Store, func() packstore.Store) {
		c := config(t, server)
		return openS3(t, c), func() packstore.Store { return openS3(t, c) }
	})
}

func TestS3ConformanceOnVersitygw(t *testing.T) {
	t.Parallel()
	s3Conformance(t, s3test.Versitygw(t))
}

func TestS3ConformanceOnMinIO(t *testing.T) {
	t.Parallel()
	s3Conformance(t, s3test.MinIO(t))
}
