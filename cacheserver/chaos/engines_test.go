package chaos

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/pgtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/s3test"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// storage is where servers keep their data. All of them share it.
type storage struct {
	dir    string // of what is on this machine
	flags  []string
	env    []string
	config cacheserver.Config

	s3       *s3test.Server // nil: packs are in dir
	postgres *pgtest.Server // nil: the index is in dir
}

// engines are the storages that servers are tested over.
var engines = []struct {
	name string
	make func(t *testing.T) *storage
}{
	{"disk and SQLite", onDisk},
	{"versitygw and PostgreSQL", func(t *testing.T) *storage { return remote(t, s3test.Versitygw) }},
	{"MinIO and PostgreSQL", func(t *testing.T) *storage { return remote(t, s3test.MinIO) }},
}

// onEachEngine runs a test over each of the engines that are to be had.
func onEachEngine(t *testing.T, test func(t *testing.T, s *storage)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			program(t)
			test(t, e.make(t))
		})
	}
}

func onDisk(t *testing.T) *storage { return diskIn(t.TempDir()) }

func diskIn(dir string) *storage { return &storage{dir: dir, config: cacheserver.Config{Data: dir}} }

// remote is a storage in which nothing but caches is on this machine.
func remote(t *testing.T, newS3 func(testing.TB) *s3test.Server) *storage {
	s3 := newS3(t)
	postgres := pgtest.New(t)
	s := &storage{dir: t.TempDir(), s3: s3, postgres: postgres}
	bucket := "s3://" + s3.NewBucket(t) + "/chaos"
	database := postgres.Database(t)
	s.flags = []string{"--storage", bucket, "--s3-endpoint", s3.Endpoint, "--index", database}
	s.env = []string{"S3_ACCESS_KEY_ID=" + s3.AccessKey, "S3_SECRET_ACCESS_KEY=" + s3.SecretKey}
	s.config = cacheserver.Config{
		Storage: bucket, Index: database,
		S3: packstore.S3Config{Endpoint: s3.Endpoint, AccessKeyID: s3.AccessKey, SecretAccessKey: s3.SecretKey},
	}
	return s
}

// dataOf is the data directory of the server of that number: its own, where what
// servers share is elsewhere.
func (s *storage) dataOf(number int) string {
	if s.s3 == nil {
		return s.dir
	}
	return filepath.Join(s.dir, string(rune('a'+number)))
}

// engineFlags are what every command is given.
func (s *storage) engineFlags(number int) []string {
	return append([]string{"--data", s.dataOf(number)}, s.flags...)
}

// contents are the packs in the storage, those of which the index knows, and
// what the index counts.
type contents struct {
	stored, known map[string]int64 // sizes by name
	usage         index.Usage
	copies        int64 // of chunks, in all packs
}

// inspect looks at the storage while no server is at work.
func (s *storage) inspect(t testing.TB) contents {
	t.Helper()
	config := s.config
	config.Data = s.dataOf(0)
	e, err := cacheserver.OpenEngines(t.Context(), &config)
	must(t, err)
	defer func() { must(t, e.Close()) }()
	c := contents{stored: map[string]int64{}, known: map[string]int64{}}
	must(t, e.Packs.List(t.Context(), func(name string, size int64) error {
		c.stored[name] = size
		return nil
	}))
	const all = 1 << 20
	packs, err := e.Index.Packs(t.Context(), "", all)
	must(t, err)
	for _, p := range packs {
		c.known[p.Name] = p.Size
		c.copies += int64(len(tableOf(t, e.Packs, p)))
	}
	c.usage, err = e.Index.Usage(t.Context())
	must(t, err)
	return c
}

func tableOf(t testing.TB, packs packstore.Store, p index.Pack) []pack.Entry {
	t.Helper()
	r, err := packs.Open(t.Context(), p.Name, 0, p.Size)
	must(t, err)
	defer r.Close()
	whole, err := io.ReadAll(io.LimitReader(r, p.Size))
	must(t, err)
	entries, err := pack.ReadTable(bytes.NewReader(whole), p.Size)
	must(t, err)
	return entries
}
