package bazelcache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func compress(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	must(t, err)
	return z.EncodeAll(b, nil)
}

func decompress(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(b))
	must(t, err)
	defer z.Close()
	out, err := io.ReadAll(z)
	must(t, err)
	return out
}

// sizes are of blobs that are one message, one chunk, several chunks in memory,
// and streamed.
var sizes = []int{1, minChunk, minChunk + 1, 300_000, inMemory, inMemory + 1}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	for fname, f := range functions {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, zstd %t", fname, packed), func(t *testing.T) {
				t.Parallel()
				h := open(t, Config{})
				for i, size := range sizes {
					b := noise(uint64(i), size)
					d := name(f.fn, b)
					sent := b
					if packed {
						sent = compress(t, b)
					}
					n, err := h.write(t.Context(), writeName("u", f.fn, d, packed), 0, sent, 100_000, true)
					must(t, err)
					if n != int64(len(sent)) {
						t.Errorf("%d bytes: committed_size %d, want %d", size, n, len(sent))
					}
					for _, offset := range []int64{0, 1, int64(size) / 2, int64(size) - 1, int64(size)} {
						got, err := h.read(t.Context(), &bspb.ReadRequest{ResourceName: readName(f.fn, d, false), ReadOffset: offset})
						must(t, err)
						if !bytes.Equal(got, b[offset:]) {
							t.Errorf("%d bytes from %d on: other bytes", size, offset)
						}
						got, err = h.read(t.Context(), &bspb.ReadRequest{ResourceName: readName(f.fn, d, true), ReadOffset: offset})
						must(t, err)
						if !bytes.Equal(decompress(t, got), b[offset:]) {
							t.Errorf("%d bytes from %d on, compressed: other bytes", size, offset)
						}
						limit := max(1, int64(size)/3)
						got, err = h.read(t.Context(), &bspb.ReadRequest{ResourceName: readName(f.fn, d, false), ReadOffset: offset, ReadLimit: limit})
						must(t, err)
						if !bytes.Equal(got, b[offset:min(int64(size), offset+limit)]) {
							t.Errorf("%d of %d bytes from %d on: other bytes", limit, size, offset)
						}
					}
				}
			})
		}
	}
}

func TestReadsThatAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := []byte("hello")
	h.put(t, b)
	d := name(functionSHA256, b)
	other := d
	other.Size++
	for what, c := range map[string]struct {
		r    *bspb.ReadRequest
		code codes.Code
	}{
		"offset behind the end":  {&bspb.ReadRequest{ResourceName: readName(0, d, false), ReadOffset: 6}, codes.OutOfRange},
		"negative offset":        {&bspb.ReadRequest{ResourceName: readName(0, d, false), ReadOffset: -1}, codes.OutOfRange},
		"negative limit":         {&bspb.ReadRequest{ResourceName: readName(0, d, false), ReadLimit: -1}, codes.InvalidArgument},
		"limit of a compressed":  {&bspb.ReadRequest{ResourceName: readName(0, d, true), ReadLimit: 1}, codes.InvalidArgument},
		"another size":           {&bspb.ReadRequest{ResourceName: readName(0, other, false)}, codes.NotFound},
		"another function":       {&bspb.ReadRequest{ResourceName: readName(functionBLAKE3, d, false)}, codes.NotFound},
		"not there":              {&bspb.ReadRequest{ResourceName: readName(0, name(0, []byte("no")), false)}, codes.NotFound},
		"not there, compressed":  {&bspb.ReadRequest{ResourceName: readName(0, name(0, []byte("no")), true)}, codes.NotFound},
		"no name":                {&bspb.ReadRequest{}, codes.InvalidArgument},
		"a name of a write":      {&bspb.ReadRequest{ResourceName: writeName("u", 0, d, false)}, codes.InvalidArgument},
		"another compressor":     {&bspb.ReadRequest{ResourceName: strings.Replace(readName(0, d, true), "zstd", "deflate", 1)}, codes.InvalidArgument},
		"the hash in upper case": {&bspb.ReadRequest{ResourceName: strings.ToUpper(readName(0, d, false))}, codes.InvalidArgument},
	} {
		if _, err := h.read(t.Context(), c.r); err == nil {
			t.Errorf("%s: no error", what)
		} else {
			wantCode(t, err, c.code)
		}
	}
}

func TestTheEmptyBlobIsThere(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	for _, f := range functions {
		d := name(f.fn, nil)
		for _, packed := range []bool{false, true} {
			got, err := h.read(t.Context(), &bspb.ReadRequest{ResourceName: readName(f.fn, d, packed)})
			must(t, err)
			if packed {
				got = decompress(t, got)
			}
			if len(got) > 0 {
				t.Errorf("it has %d bytes", len(got))
			}
			_, err = h.write(t.Context(), writeName("u", f.fn, d, packed), 0, nil, 1, true)
			must(t, err)
		}
		other := d
		other.Hash[0]++
		_, err := h.write(t.Context(), writeName("u", f.fn, other, false), 0, nil, 1, true)
		wantCode(t, err, codes.InvalidArgument)
	}
}

func TestWhatIsThereIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := noise(1, 5<<20)
	d := name(0, b)
	_, err := h.write(t.Context(), writeName("u", 0, d, false), 0, b, 1<<20, true)
	must(t, err)
	puts := h.packs.puts.Load()
	n, err := h.write(t.Context(), writeName("v", 0, d, false), 0, b[:1], 1, false)
	must(t, err)
	if n != d.Size {
		t.Errorf("committed_size %d, want %d", n, d.Size)
	}
	n, err = h.write(t.Context(), writeName("v", 0, d, true), 0, b[:1], 1, false)
	must(t, err)
	if n != -1 {
		t.Errorf("compressed: committed_size %d, want -1", n)
	}
	q, err := h.stream.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: writeName("w", 0, d, false)})
	must(t, err)
	if !q.Complete || q.CommittedSize != d.Size {
		t.Errorf("QueryWriteStatus: %v", q)
	}
	if now := h.packs.puts.Load(); now != puts {
		t.Errorf("%d packs were written", now-puts)
	}
}

func TestWrongUploadsStoreNothing(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	for _, size := range []int{100, 200_000, 5 << 20} {
		b := noise(uint64(size), size)
		wrong := bytes.Clone(b)
		wrong[size/2]++
		short, long := name(0, b), name(0, b)
		short.Size--
		long.Size++
		for what, c := range map[string]struct {
			name string
			data []byte
		}{
			"other bytes":             {writeName("u", 0, name(0, b), false), wrong},
			"other bytes, compressed": {writeName("u", 0, name(0, b), true), compress(t, wrong)},
			"other bytes, BLAKE3":     {writeName("u", functionBLAKE3, name(functionBLAKE3, b), false), wrong},
			"another function":        {writeName("u", functionBLAKE3, name(0, b), false), b},
			"more than the size":      {writeName("u", 0, short, false), b},
			"less than the size":      {writeName("u", 0, long, false), b},
			"more, compressed":        {writeName("u", 0, short, true), compress(t, b)},
			"less, compressed":        {writeName("u", 0, long, true), compress(t, b)},
			"no zstd":                 {writeName("u", 0, name(0, b), true), b},
			"cut zstd":                {writeName("u", 0, name(0, b), true), compress(t, b)[:size/2]},
		} {
			for _, step := range []int{64 << 10, 3 << 20} {
				_, err := h.write(t.Context(), c.name, 0, c.data, step, true)
				if status.Code(err) != codes.InvalidArgument {
					t.Errorf("%d bytes, %s: %v", size, what, err)
				}
			}
		}
	}
	usage, err := h.idx.Usage(t.Context())
	must(t, err)
	if usage.Blobs > 0 {
		t.Errorf("%d blobs are recorded", usage.Blobs)
	}
	if n := h.uploadsOpen(); n > 0 {
		t.Errorf("%d uploads are kept", n)
	}
}

// uploadsOpen is how many uploads have begun and not ended.
func (h *harness) uploadsOpen() int {
	h.uploads.mu.Lock()
	defer h.uploads.mu.Unlock()
	return len(h.uploads.byKey)
}

func TestWritesThatAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t, Config{MaxBlob: 8 << 20})
	b := noise(3, 1<<20)
	d := name(0, b)
	big := d
	big.Size = 8<<20 + 1
	for what, messages := range map[string][]*bspb.WriteRequest{
		"no name":                {{Data: b, FinishWrite: true}},
		"a name of a read":       {{ResourceName: readName(0, d, false), Data: b}},
		"no UUID":                {{ResourceName: writeName("", 0, d, false), Data: b}},
		"too large":              {{ResourceName: writeName("u", 0, big, false), Data: b}},
		"an offset to go on at":  {{ResourceName: writeName("new", 0, d, false), WriteOffset: 10, Data: b}},
		"a negative offset":      {{ResourceName: writeName("u", 0, d, false), WriteOffset: -1, Data: b}},
		"the name changes":       {{ResourceName: writeName("u", 0, d, false), Data: b[:10]}, {ResourceName: writeName("v", 0, d, false), WriteOffset: 10, Data: b[10:]}},
		"a gap between messages": {{ResourceName: writeName("u", 0, d, false), Data: b[:10]}, {WriteOffset: 11, Data: b[11:]}},
		"the offset goes back":   {{ResourceName: writeName("u", 0, d, false), Data: b[:10]}, {WriteOffset: 5, Data: b[5:]}},
	} {
		s, err := h.stream.Write(t.Context())
		must(t, err)
		for _, m := range messages {
			_ = s.Send(m) // the answer says what is wrong
		}
		_, err = s.CloseAndRecv()
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		wantCode(t, err, codes.InvalidArgument)
	}
	if !h.missing(t, b) {
		t.Error("the blob is there")
	}
}

func TestAnUploadGoesOnWhereItBrokeOff(t *testing.T) {
	t.Parallel()
	for _, packed := range []bool{false, true} {
		for _, size := range []int{1 << 20, 7 << 20} {
			t.Run(fmt.Sprintf("%d bytes, zstd %t", size, packed), func(t *testing.T) {
				t.Parallel()
				h := open(t, Config{})
				b := noise(4, size)
				d := name(0, b)
				resource := writeName("u", 0, d, packed)
				pack := func(b []byte) []byte {
					if packed {
						return compress(t, b)
					}
					return b
				}
				query := func() int64 {
					q, err := h.stream.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: resource})
					must(t, err)
					if q.Complete {
						t.Fatal("it is complete")
					}
					return q.CommittedSize
				}
				if n := query(); n != 0 {
					t.Errorf("before it began: committed_size %d", n)
				}
				// The connection breaks in the middle.
				ctx, cancel := context.WithCancel(t.Context())
				s, err := h.stream.Write(ctx)
				must(t, err)
				must(t, s.Send(&bspb.WriteRequest{ResourceName: resource, Data: pack(b[:size/2])}))
				eventually(t, "the first half is taken", func() bool { return query() >= int64(size/4) })
				cancel()
				// The client goes on a little before what was taken, as one does that asked
				// while bytes were on their way, and then ends the call, not the upload.
				at := query() - 5
				n, err := h.write(t.Context(), resource, at, pack(b[at:size*3/4]), 1<<20, false)
				must(t, err)
				if at = query(); n != at || at < int64(size/2) {
					t.Errorf("committed_size %d, QueryWriteStatus says %d", n, at)
				}
				_, err = h.write(t.Context(), resource, at, pack(b[at:]), 1<<20, true)
				must(t, err)
				got, err := h.read(t.Context(), &bspb.ReadRequest{ResourceName: readName(0, d, false)})
				must(t, err)
				if !bytes.Equal(got, b) {
					t.Error("other bytes")
				}
				if n := h.uploadsOpen(); n > 0 {
					t.Errorf("%d uploads are kept", n)
				}
			})
		}
	}
}

func TestAnUploadBeginsAnew(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := noise(5, 5<<20)
	resource := writeName("u", 0, name(0, b), false)
	// What was sent first was wrong, which the upload must not remember.
	_, err := h.write(t.Context(), resource, 0, noise(6, 1<<20), 1<<20, false)
	must(t, err)
	_, err = h.write(t.Context(), resource, 0, b, 1<<20, true)
	must(t, err)
	if h.missing(t, b) {
		t.Error("it is missing")
	}
}

func TestFewUploadsWaitForTheirClients(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	for i := range 5 * maxParked {
		b := noise(uint64(i), 5<<20)
		_, err := h.write(t.Context(), writeName("u", 0, name(0, b), false), 0, b[:1<<20], 1<<20, false)
		must(t, err)
	}
	eventually(t, "the oldest ones are given up", func() bool { return h.uploadsOpen() <= maxParked })
	// They hold no more memory than leaves room for others.
	b := noise(99, 5<<20)
	_, err := h.write(t.Context(), writeName("u", 0, name(0, b), false), 0, b, 1<<20, true)
	must(t, err)
}

// secondReceive says when its call begins to wait for the second message.
type secondReceive struct {
	grpc.ServerStream
	begins chan<- struct{}
	calls  int
}

func (s *secondReceive) RecvMsg(m any) error {
	if s.calls++; s.calls == 2 {
		close(s.begins)
	}
	return s.ServerStream.RecvMsg(m)
}

// An upload whose client sends nothing more holds memory that others wait for.
func TestAnUploadThatDoesNotComeIsGivenUp(t *testing.T) {
	t.Parallel()
	waits := make(chan struct{})
	h := open(t, Config{Options: []grpc.ServerOption{grpc.ChainStreamInterceptor(
		func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, &secondReceive{ServerStream: s, begins: waits})
		},
	)}})
	h.pace.patience = 50 * time.Millisecond
	b := noise(7, 5<<20)
	s, err := h.stream.Write(t.Context())
	must(t, err)
	must(t, s.Send(&bspb.WriteRequest{ResourceName: writeName("u", 0, name(0, b), false), Data: b[:1000]}))
	<-waits // the upload is open, and its patience runs
	eventually(t, "it is given up", func() bool { return h.uploadsOpen() == 0 })
	_ = s.Send(&bspb.WriteRequest{WriteOffset: 1000, Data: b[1000:2000]})
	_, err = s.CloseAndRecv()
	wantCode(t, err, codes.DeadlineExceeded)
}

func TestASecondCallTakesTheUploadOver(t *testing.T) {
	t.Parallel()
	h := open(t, Config{})
	b := noise(8, 5<<20)
	resource := writeName("u", 0, name(0, b), false)
	first, err := h.stream.Write(t.Context())
	must(t, err)
	must(t, first.Send(&bspb.WriteRequest{ResourceName: resource, Data: b[:1000]}))
	eventually(t, "its bytes are taken", func() bool {
		q, err := h.stream.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: resource})
		return err == nil && q.CommittedSize == 1000
	})
	_, err = h.write(t.Context(), resource, 1000, b[1000:2000], 1000, false)
	must(t, err)
	_ = first.Send(&bspb.WriteRequest{WriteOffset: 1000, Data: b[1000:2000]})
	_, err = first.CloseAndRecv()
	wantCode(t, err, codes.Aborted)
	_, err = h.write(t.Context(), resource, 2000, b[2000:], 1<<20, true)
	must(t, err)
}
