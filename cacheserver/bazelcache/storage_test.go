package bazelcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	googleproto "google.golang.org/protobuf/proto"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

func TestBatches(t *testing.T) {
	t.Parallel()
	for fname, f := range functions {
		t.Run(fname, func(t *testing.T) {
			t.Parallel()
			h := open(t, Config{})
			zeros := make([]byte, 100_000)
			good := map[digest.Digest][]byte{}
			r := &repb.BatchUpdateBlobsRequest{DigestFunction: f.v}
			for i, b := range [][]byte{[]byte("a"), noise(1, 300_000), zeros, nil, []byte("packed"), []byte("a")} {
				d := name(f.fn, b)
				good[d] = b
				one := &repb.BatchUpdateBlobsRequest_Request{Digest: proto(d), Data: b}
				if i == 4 {
					one.Data, one.Compressor = compress(t, b), repb.Compressor_ZSTD
				}
				r.Requests = append(r.Requests, one)
			}
			bad := []*repb.BatchUpdateBlobsRequest_Request{
				{Digest: proto(name(f.fn, []byte("b"))), Data: []byte("c")},
				{Digest: &repb.Digest{Hash: f.fn.of([]byte("d")).String(), SizeBytes: 2}, Data: []byte("d")},
				{Digest: &repb.Digest{Hash: f.fn.of([]byte("d")).String(), SizeBytes: -1}, Data: []byte("d")},
				{Digest: &repb.Digest{Hash: "abc", SizeBytes: 1}, Data: []byte("d")},
				{Data: []byte("d")},
				{Digest: proto(name(f.fn, []byte("e"))), Data: []byte("e"), Compressor: repb.Compressor_DEFLATE},
				{Digest: proto(name(f.fn, []byte("f"))), Data: []byte("f"), Compressor: repb.Compressor_ZSTD},
				{Digest: proto(name(f.fn, []byte("g"))), Data: compress(t, []byte("gg")), Compressor: repb.Compressor_ZSTD},
				{Digest: proto(name(f.fn, []byte("hh"))), Data: compress(t, []byte("h")), Compressor: repb.Compressor_ZSTD},
			}
			a, err := h.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{DigestFunction: f.v, Requests: append(bad, r.Requests...)})
			must(t, err)
			for i, one := range a.Responses {
				want := codes.OK
				if i < len(bad) {
					want = codes.InvalidArgument
				}
				wantCode(t, status.ErrorProto(one.Status), want)
			}
			absent := name(f.fn, []byte("absent"))
			for _, takes := range [][]repb.Compressor_Value{nil, {repb.Compressor_ZSTD}} {
				q := &repb.BatchReadBlobsRequest{DigestFunction: f.v, AcceptableCompressors: takes, Digests: []*repb.Digest{proto(absent)}}
				for d := range good {
					q.Digests = append(q.Digests, proto(d))
				}
				answer, err := h.cas.BatchReadBlobs(t.Context(), q)
				must(t, err)
				packed := false
				for i, one := range answer.Responses {
					if !googleproto.Equal(one.Digest, q.Digests[i]) {
						t.Errorf("answer %d is to %v", i, one.Digest)
					}
					if i == 0 {
						wantCode(t, status.ErrorProto(one.Status), codes.NotFound)
						continue
					}
					wantCode(t, status.ErrorProto(one.Status), codes.OK)
					if one.Compressor == repb.Compressor_ZSTD {
						one.Data = decompress(t, one.Data)
						packed = true
					}
					d, err := parseDigest(one.Digest)
					must(t, err)
					if !bytes.Equal(one.Data, good[d]) {
						t.Errorf("blob %s has other bytes", d)
					}
				}
				if packed != (takes != nil) {
					t.Errorf("compressed: %t, the client takes %v", packed, takes)
				}
			}
			var all []*repb.Digest
			for d := range good {
				all = append(all, proto(d))
			}
			m, err := h.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{DigestFunction: f.v, BlobDigests: append(all, proto(absent), proto(absent))})
			must(t, err)
			if len(m.MissingBlobDigests) != 1 || m.MissingBlobDigests[0].Hash != absent.Hash.String() {
				t.Errorf("missing: %v", m.MissingBlobDigests)
			}
		})
	}
}

func TestBatchesThatAreTooLarge(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	var update repb.BatchUpdateBlobsRequest
	var read repb.BatchReadBlobsRequest
	for i := range 4 {
		b := noise(uint64(i), 950_000)
		update.Requests = append(update.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: sha(b), Data: b})
		read.Digests = append(read.Digests, sha(b))
	}
	_, err := h.cas.BatchUpdateBlobs(t.Context(), &update)
	wantCode(t, err, codes.InvalidArgument)
	_, err = h.cas.BatchReadBlobs(t.Context(), &read)
	wantCode(t, err, codes.InvalidArgument)
	// What a client says of sizes must not be added up to less.
	huge := &repb.Digest{Hash: sha(nil).Hash, SizeBytes: 1<<63 - 1}
	_, err = h.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: huge}, {Digest: huge}, {Digest: huge}}})
	wantCode(t, err, codes.InvalidArgument)
	_, err = h.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{huge, huge, huge}})
	wantCode(t, err, codes.InvalidArgument)

	// Just what is allowed, which must fit into a message both ways.
	update.Requests, read.Digests = nil, nil
	for i := range 700 {
		b := noise(uint64(i), 5000)
		update.Requests = append(update.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: sha(b), Data: b})
		read.Digests = append(read.Digests, sha(b))
	}
	puts := h.packs.puts.Load()
	a, err := h.cas.BatchUpdateBlobs(t.Context(), &update)
	must(t, err)
	for _, one := range a.Responses {
		must(t, status.ErrorProto(one.Status))
	}
	if n := h.packs.puts.Load() - puts; n != 1 {
		t.Errorf("%d packs for one batch", n)
	}
	all, err := h.cas.BatchReadBlobs(t.Context(), &read)
	must(t, err)
	for i, one := range all.Responses {
		if !bytes.Equal(one.Data, update.Requests[i].Data) {
			t.Fatalf("blob %d has other bytes", i)
		}
	}
}

func TestMalformedDigestsAndFunctionsAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	good := sha([]byte("x"))
	for _, d := range []*repb.Digest{nil, {}, {Hash: good.Hash, SizeBytes: -1}, {Hash: good.Hash[1:], SizeBytes: 1}, {Hash: strings.ToUpper(good.Hash), SizeBytes: 1}, {Hash: good.Hash[1:] + "g", SizeBytes: 1}} {
		for call, err := range h.withDigest(t.Context(), d, repb.DigestFunction_SHA256, "") {
			if err == nil {
				t.Errorf("%s of %v: no error", call, d)
			}
			wantCode(t, err, codes.InvalidArgument)
		}
	}
	for call, err := range h.withDigest(t.Context(), good, repb.DigestFunction_SHA1, "") {
		if err == nil {
			t.Errorf("%s with SHA1: no error", call)
		}
		wantCode(t, err, codes.InvalidArgument)
	}
	for _, instance := range []string{"a/blobs", "uploads", "/a", "a/", "a//b", "a\x00", strings.Repeat("a", 256)} {
		for call, err := range h.withDigest(t.Context(), good, repb.DigestFunction_SHA256, instance) {
			if err == nil {
				t.Errorf("%s with instance %q: no error", call, instance)
			}
			wantCode(t, err, codes.InvalidArgument)
		}
	}
}

// withDigest makes every call that names a blob or an action.
func (h *harness) withDigest(ctx context.Context, d *repb.Digest, fn repb.DigestFunction_Value, instance string) map[string]error {
	out := map[string]error{}
	ds := []*repb.Digest{d}
	_, out["FindMissingBlobs"] = h.cas.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{InstanceName: instance, DigestFunction: fn, BlobDigests: ds})
	_, out["BatchReadBlobs"] = h.cas.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{InstanceName: instance, DigestFunction: fn, Digests: ds})
	_, out["SplitBlob"] = h.cas.SplitBlob(ctx, &repb.SplitBlobRequest{InstanceName: instance, DigestFunction: fn, BlobDigest: d})
	_, out["SpliceBlob"] = h.cas.SpliceBlob(ctx, &repb.SpliceBlobRequest{InstanceName: instance, DigestFunction: fn, BlobDigest: d})
	_, out["GetActionResult"] = h.ac.GetActionResult(ctx, &repb.GetActionResultRequest{InstanceName: instance, DigestFunction: fn, ActionDigest: d})
	_, out["UpdateActionResult"] = h.ac.UpdateActionResult(ctx, &repb.UpdateActionResultRequest{InstanceName: instance, DigestFunction: fn, ActionDigest: d, ActionResult: &repb.ActionResult{}})
	_, out["GetTree"] = h.tree(ctx, &repb.GetTreeRequest{InstanceName: instance, DigestFunction: fn, RootDigest: d})
	mapping, err := h.cas.GetChunkMapping(ctx, &repb.GetChunkMappingRequest{InstanceName: instance, DigestFunction: fn, BlobDigest: d})
	if err == nil {
		_, err = mapping.Recv()
	}
	out["GetChunkMapping"] = err
	register, err := h.cas.RegisterChunkMapping(ctx)
	if err == nil {
		_ = register.Send(&repb.RegisterChunkMappingRequest{InstanceName: instance, DigestFunction: fn, BlobDigest: d})
		_, err = register.CloseAndRecv()
	}
	out["RegisterChunkMapping"] = err
	return out
}

// Many clients that write small blobs at once share packs and transactions.
func TestSmallWritesAreGrouped(t *testing.T) {
	t.Parallel()
	const clients, each = 64, 10
	var calls, left atomic.Int64
	left.Store(clients)
	h := open(t, Config{Options: []grpc.ServerOption{grpc.ChainStreamInterceptor(
		func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			calls.Add(1)
			defer calls.Add(-1)
			return next(srv, s)
		},
	)}})
	// A disk that is slower than all clients, however slow these are: it waits until
	// each that is left has a call under way.
	slow := func() {
		for began := time.Now(); calls.Load() < left.Load() && time.Since(began) < 2*time.Minute; {
			time.Sleep(time.Millisecond)
		}
	}
	h.packs.before.Store(&slow)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			defer left.Add(-1)
			for i := range each {
				b := fmt.Appendf(nil, "blob %d of client %d", i, c)
				if _, err := h.write(t.Context(), writeName("u", 0, name(0, b), false), 0, b, len(b), true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := h.packs.puts.Load(); n > clients*each/2 {
		t.Errorf("%d packs for %d blobs of %d clients", n, clients*each, clients)
	}
}

func TestFaultsOfTheEngines(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		fault error
		code  codes.Code
	}{
		"no room":      {fmt.Errorf("writing pack x: %w", packstore.ErrNoSpace), codes.ResourceExhausted},
		"no room, too": {fmt.Errorf("writing: %w", index.ErrNoSpace), codes.ResourceExhausted},
		"not reached":  {fmt.Errorf("dialing db.example.org: %w", index.ErrUnavailable), codes.Unavailable},
		"other":        {errors.New("input/output error"), codes.Internal},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := open(t, Config{})
			for where, fail := range map[string]*atomic.Pointer[error]{"packs": &h.packs.fail, "index": &h.idx.fail} {
				fail.Store(&c.fault)
				for _, size := range []int{10, 200_000, 5 << 20} {
					b := noise(1, size)
					_, err := h.write(t.Context(), writeName("u", 0, name(0, b), false), 0, b, 1<<20, true)
					wantCode(t, err, c.code)
					if strings.Contains(err.Error(), c.fault.Error()) {
						t.Errorf("%s: the client is told %v", where, err)
					}
					if c.code == codes.Unavailable && !hasRetry(err) {
						t.Errorf("%s: nothing says when to try again", where)
					}
				}
				a, err := h.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: sha([]byte("a")), Data: []byte("a")}}})
				must(t, err)
				wantCode(t, status.ErrorProto(a.Responses[0].Status), c.code)
				if !strings.Contains(h.log.String(), c.fault.Error()) {
					t.Errorf("%s: the log says nothing of it: %s", where, h.log)
				}
				fail.Store(nil)
			}
			b := noise(1, 5<<20)
			_, err := h.write(t.Context(), writeName("u", 0, name(0, b), false), 0, b, 1<<20, true)
			must(t, err)
		})
	}
}

func hasRetry(err error) bool {
	for _, d := range status.Convert(err).Details() {
		if _, ok := d.(*errdetails.RetryInfo); ok {
			return true
		}
	}
	return false
}

// A blob that a client was told of outlives what it was stored with, and is not
// written about again and again.
func TestLifetimesAreRefreshed(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := []byte("a blob that another door has stored")
	blob, err := h.ingest(t.Context(), want{functionSHA256, digest.Of(b), int64(len(b))}, bytes.NewReader(b))
	must(t, err)
	expires := func(after time.Duration) bool { // whether it is swept then
		var removed int64
		errUndo := errors.New("undo")
		err := h.idx.Index.Update(t.Context(), func(tx index.Tx) error {
			s, err := tx.SweepBlobs(0, 100, time.Now().Add(after))
			removed = s.Removed
			if err != nil {
				return err
			}
			return errUndo
		})
		if !errors.Is(err, errUndo) {
			t.Fatal(err)
		}
		return removed > 0
	}
	shorten := func() {
		must(t, h.idx.Index.Update(t.Context(), func(tx index.Tx) error {
			_, err := tx.ReleaseBlobs([]int64{blob.ID}, time.Now().Add(2*DefaultRetention))
			return err
		}))
		if !expires(time.Hour) {
			t.Fatal("it is still held")
		}
		h.known.forget()
	}
	if expires(DefaultRetention - time.Hour) {
		t.Error("it does not live for the retention")
	}
	for what, use := range map[string]func(){
		"FindMissingBlobs": func() { h.missing(t, b) },
		"an upload": func() {
			_, err := h.write(t.Context(), writeName("u", 0, name(0, b), false), 0, b, 100, true)
			must(t, err)
		},
		"BatchUpdateBlobs": func() { h.put(t, b) },
		"GetActionResult": func() {
			_, err := h.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: sha(b), ActionResult: &repb.ActionResult{StdoutDigest: sha(b)}})
			must(t, err)
			_, err = h.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: sha(b)})
			must(t, err)
		},
	} {
		shorten()
		use()
		if expires(DefaultRetention - 2*time.Hour) {
			t.Errorf("%s: the blob does not live on", what)
		}
	}
	shorten()
	_, err = h.read(t.Context(), readRequest(b))
	must(t, err)
	eventually(t, "a read is written down", func() bool { return !expires(DefaultRetention - 2*time.Hour) })

	before := h.idx.updates.Load()
	for range 10 {
		h.missing(t, b)
		_, err = h.read(t.Context(), readRequest(b))
		must(t, err)
	}
	h.recordUses(t.Context())
	if n := h.idx.updates.Load() - before; n > 0 {
		t.Errorf("%d changes of the index for a blob that was just refreshed", n)
	}
}

// The collector of another process may come between looking a blob up and making
// it live on.
func TestABlobThatIsCollectedMeanwhileIsMissing(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := []byte("soon gone")
	h.put(t, b)
	d, err := parseDigest(sha(b))
	must(t, err)
	found, err := h.find(t.Context(), functionSHA256, []digest.Digest{d})
	must(t, err)
	blob := found[d]
	must(t, h.idx.Index.Update(t.Context(), func(tx index.Tx) error {
		if _, err := tx.ReleaseBlobs([]int64{blob.ID}, time.Now().Add(2*DefaultRetention)); err != nil {
			return err
		}
		_, err := tx.SweepBlobs(0, 100, time.Now())
		return err
	}))
	blob.Expires = time.Now()
	found[d] = blob
	all, err := h.hold(t.Context(), found)
	if all || err != nil {
		t.Errorf("hold: %t, %v", all, err)
	}
	if !h.missing(t, b) {
		t.Error("it is said to be there")
	}
}

func TestDamageIsNotServed(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	small, large := []byte("small"), noise(1, 5<<20)
	h.put(t, small)
	_, err := h.write(t.Context(), writeName("u", 0, name(0, large), false), 0, large, 1<<20, true)
	must(t, err)
	h.spoil(t)
	for _, b := range [][]byte{small, large} {
		for _, zstd := range []bool{false, true} {
			r := readRequest(b)
			r.ResourceName = readName(0, name(0, b), zstd)
			_, err := h.read(t.Context(), r)
			wantCode(t, err, codes.DataLoss)
		}
	}
	a, err := h.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{sha(small)}})
	must(t, err)
	wantCode(t, status.ErrorProto(a.Responses[0].Status), codes.DataLoss)
	if !strings.Contains(h.log.String(), "damaged") {
		t.Error("the log says nothing of it")
	}
}
