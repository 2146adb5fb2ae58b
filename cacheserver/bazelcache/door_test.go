package bazelcache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// harness is a door on a port, with a client.
type harness struct {
	*Door
	url   string // of HTTP, without a slash at the end
	conn  *grpc.ClientConn
	log   *buffer
	packs *packs
	dir   string // of the packs
	idx   *faultyIndex
	kill  func() // the listener and all connections

	caps   repb.CapabilitiesClient
	ac     repb.ActionCacheClient
	cas    repb.ContentAddressableStorageClient
	stream bspb.ByteStreamClient
}

// buffer is a log that is written to at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// packs counts what is written, and can wait and fail.
type packs struct {
	packstore.Store
	puts   atomic.Int64
	fail   atomic.Pointer[error]
	before atomic.Pointer[func()] // called by Put
}

func (p *packs) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	p.puts.Add(1)
	if before := p.before.Load(); before != nil {
		(*before)()
	}
	if err := p.fail.Load(); err != nil {
		return *err
	}
	return p.Store.Put(ctx, name, size, body)
}

type faultyIndex struct {
	index.Index
	updates atomic.Int64
	fail    atomic.Pointer[error]
}

func (x *faultyIndex) Update(ctx context.Context, change func(index.Tx) error) error {
	x.updates.Add(1)
	if err := x.fail.Load(); err != nil {
		return *err
	}
	return x.Index.Update(ctx, change)
}

// open starts a door on a port that has HTTP and gRPC.
func open(t testing.TB, c Config) *harness {
	t.Helper()
	return openWithGrace(t, c, cas.DefaultGrace)
}

func openWithGrace(t testing.TB, c Config, grace time.Duration) *harness {
	t.Helper()
	dir := t.TempDir()
	disk, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	must(t, err)
	sqlite, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index.sqlite"))
	must(t, err)
	h := &harness{dir: filepath.Join(dir, "packs"), log: &buffer{}, packs: &packs{Store: disk}, idx: &faultyIndex{Index: sqlite}}
	store := cas.New(h.packs, h.idx, grace)
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(h.log, nil))
	}
	h.Door = New(store, h.idx, c)
	server := httptest.NewUnstartedServer(h.Handler(http.NotFoundHandler()))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.Start()
	h.url = server.URL
	h.dial(t, server.Listener.Addr().String())
	h.kill = func() {
		_ = server.Listener.Close()
		_ = server.Config.Close()
		server.CloseClientConnections()
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		_ = h.conn.Close()
		server.CloseClientConnections()
		server.Close()
		stop()
		must(t, <-ended)
		store.Close()
		must(t, sqlite.Close())
	})
	return h
}

func (h *harness) dial(t testing.TB, address string) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	h.conn = conn
	h.caps = repb.NewCapabilitiesClient(conn)
	h.ac = repb.NewActionCacheClient(conn)
	h.cas = repb.NewContentAddressableStorageClient(conn)
	h.stream = bspb.NewByteStreamClient(conn)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode fails unless err has that code.
func wantCode(t testing.TB, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%v, want code %s", err, code)
	}
}

// noise is bytes that do not compress, the same ones for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b)
	return b
}

// functions are those that clients may use, each with what it is on the wire.
var functions = map[string]struct {
	fn function
	v  repb.DigestFunction_Value
}{
	"SHA256": {functionSHA256, repb.DigestFunction_SHA256},
	"BLAKE3": {functionBLAKE3, repb.DigestFunction_BLAKE3},
}

func name(fn function, b []byte) digest.Digest {
	return digest.Digest{Hash: fn.of(b), Size: int64(len(b))}
}

func sha(b []byte) *repb.Digest { return proto(name(functionSHA256, b)) }

// put stores blobs as Bazel does not, but remote execution does.
func (h *harness) put(t testing.TB, blobs ...[]byte) {
	t.Helper()
	r := &repb.BatchUpdateBlobsRequest{}
	for _, b := range blobs {
		r.Requests = append(r.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: sha(b), Data: b})
	}
	a, err := h.cas.BatchUpdateBlobs(t.Context(), r)
	must(t, err)
	for _, one := range a.Responses {
		must(t, status.ErrorProto(one.Status))
	}
}

// missing says whether a blob is missing.
func (h *harness) missing(t testing.TB, b []byte) bool {
	t.Helper()
	a, err := h.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{sha(b)}})
	must(t, err)
	return len(a.MissingBlobDigests) > 0
}

// readName is the name of a blob for ByteStream.Read.
func readName(fn function, d digest.Digest, zstd bool) string {
	kind := "blobs"
	if zstd {
		kind = "compressed-blobs/zstd"
	}
	if fn == functionBLAKE3 {
		kind += "/blake3"
	}
	return fmt.Sprintf("%s/%s/%d", kind, d.Hash, d.Size)
}

func writeName(uuid string, fn function, d digest.Digest, zstd bool) string {
	return "uploads/" + uuid + "/" + readName(fn, d, zstd)
}

// read reads a resource to its end.
func (h *harness) read(ctx context.Context, r *bspb.ReadRequest) ([]byte, error) {
	s, err := h.stream.Read(ctx, r)
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, m.Data...)
	}
}

// write sends data in messages of step bytes from an offset on.
func (h *harness) write(ctx context.Context, name string, offset int64, data []byte, step int, finish bool) (int64, error) {
	s, err := h.stream.Write(ctx)
	if err != nil {
		return 0, err
	}
	for first := true; first || len(data) > 0; first = false {
		n := min(step, len(data))
		m := &bspb.WriteRequest{WriteOffset: offset, Data: data[:n], FinishWrite: finish && n == len(data)}
		if first {
			m.ResourceName = name
		}
		if err := s.Send(m); err == io.EOF {
			break // the answer says why
		} else if err != nil {
			return 0, err
		}
		offset += int64(n)
		data = data[n:]
	}
	a, err := s.CloseAndRecv()
	return a.GetCommittedSize(), err
}

// eventually waits for what is done in the background.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return l
}

func readRequest(b []byte) *bspb.ReadRequest {
	return &bspb.ReadRequest{ResourceName: readName(functionSHA256, name(functionSHA256, b), false)}
}

// spoil changes every byte that is stored.
func (h *harness) spoil(t *testing.T) {
	t.Helper()
	must(t, filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := range b {
			b[i] ^= 0x55
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o600)
	}))
}

// tree reads all pages of GetTree.
func (h *harness) tree(ctx context.Context, r *repb.GetTreeRequest) ([]*repb.GetTreeResponse, error) {
	s, err := h.cas.GetTree(ctx, r)
	if err != nil {
		return nil, err
	}
	var pages []*repb.GetTreeResponse
	for {
		p, err := s.Recv()
		if err == io.EOF {
			return pages, nil
		}
		if err != nil {
			return pages, err
		}
		pages = append(pages, p)
	}
}
