package bazelcache

import (
	"bytes"
	"context"
	"io"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
)

// register splices by either call.
func (h *harness) register(ctx context.Context, r *repb.SpliceBlobRequest, stream bool) (*repb.Digest, error) {
	if !stream {
		a, err := h.cas.SpliceBlob(ctx, r)
		return a.GetBlobDigest(), err
	}
	s, err := h.cas.RegisterChunkMapping(ctx)
	if err != nil {
		return nil, err
	}
	half := len(r.ChunkDigests) / 2
	_ = s.Send(&repb.RegisterChunkMappingRequest{InstanceName: r.InstanceName, DigestFunction: r.DigestFunction, BlobDigest: r.BlobDigest, ChunkDigests: r.ChunkDigests[:half]})
	_ = s.Send(&repb.RegisterChunkMappingRequest{ChunkDigests: r.ChunkDigests[half:]})
	a, err := s.CloseAndRecv()
	return a.GetBlobDigest(), err
}

// split asks for chunks by either call.
func (h *harness) split(ctx context.Context, r *repb.SplitBlobRequest, stream bool) ([]*repb.Digest, repb.ChunkingFunction_Value, error) {
	if !stream {
		a, err := h.cas.SplitBlob(ctx, r)
		return a.GetChunkDigests(), a.GetChunkingFunction(), err
	}
	s, err := h.cas.GetChunkMapping(ctx, &repb.GetChunkMappingRequest{InstanceName: r.InstanceName, BlobDigest: r.BlobDigest, DigestFunction: r.DigestFunction})
	if err != nil {
		return nil, 0, err
	}
	var all []*repb.Digest
	var cutBy repb.ChunkingFunction_Value
	for first := true; ; first = false {
		m, err := s.Recv()
		if err == io.EOF {
			return all, cutBy, nil
		}
		if err != nil {
			return nil, 0, err
		}
		if first {
			cutBy = m.ChunkingFunction
		}
		all = append(all, m.ChunkDigests...)
	}
}

func TestABlobIsSplitIntoBlobs(t *testing.T) {
	t.Parallel()
	for fname, f := range functions {
		for _, stream := range []bool{false, true} {
			t.Run(fname, func(t *testing.T) {
				t.Parallel()
				h := open(t, Config{})
				b := noise(1, 6<<20)
				d := name(f.fn, b)
				_, _, err := h.split(t.Context(), &repb.SplitBlobRequest{BlobDigest: proto(d), DigestFunction: f.v}, stream)
				wantCode(t, err, codes.NotFound)
				_, err = h.write(t.Context(), writeName("u", f.fn, d, false), 0, b, 1<<20, true)
				must(t, err)
				for range 2 { // the second finds them
					chunks, cutBy, err := h.split(t.Context(), &repb.SplitBlobRequest{BlobDigest: proto(d), DigestFunction: f.v}, stream)
					must(t, err)
					if cutBy != repb.ChunkingFunction_FAST_CDC_2020 {
						t.Errorf("cut by %s", cutBy)
					}
					missing, err := h.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: chunks, DigestFunction: f.v})
					must(t, err)
					if n := len(missing.MissingBlobDigests); n > 0 {
						t.Errorf("%d of %d chunks are missing", n, len(chunks))
					}
					// They are what a client cuts by the parameters that are advertised.
					c, err := h.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{})
					must(t, err)
					cut, err := chunker.New(bytes.NewReader(b), chunker.Params{Average: int(c.CacheCapabilities.FastCdc_2020Params.AvgChunkSizeBytes)})
					must(t, err)
					for i := 0; ; i++ {
						piece, err := cut.Next()
						if err == io.EOF {
							if i != len(chunks) {
								t.Errorf("%d chunks, want %d", len(chunks), i)
							}
							break
						}
						must(t, err)
						if want := proto(name(f.fn, piece)); chunks[i].Hash != want.Hash || chunks[i].SizeBytes != want.SizeBytes {
							t.Fatalf("chunk %d is %v, want %v", i, chunks[i], want)
						}
					}
				}
			})
		}
	}
}

func TestChunksAreSpliced(t *testing.T) {
	t.Parallel()
	for fname, f := range functions {
		for _, stream := range []bool{false, true} {
			t.Run(fname, func(t *testing.T) {
				t.Parallel()
				h := open(t, Config{})
				// The parts are one chunk, several chunks, small, twice the same, and empty.
				parts := [][]byte{noise(1, 20_000), noise(2, 900_000), noise(3, 10), noise(1, 20_000), nil}
				r := &repb.SpliceBlobRequest{DigestFunction: f.v}
				var b []byte
				for _, p := range parts {
					b = append(b, p...)
					r.ChunkDigests = append(r.ChunkDigests, proto(name(f.fn, p)))
				}
				d := name(f.fn, b)
				r.BlobDigest = proto(d)
				_, err := h.register(t.Context(), r, stream)
				wantCode(t, err, codes.NotFound)
				for _, p := range parts {
					_, err := h.write(t.Context(), writeName("u", f.fn, name(f.fn, p), false), 0, p, 1<<20, true)
					must(t, err)
				}
				for what, wrong := range map[string]*repb.SpliceBlobRequest{
					"another order": {BlobDigest: r.BlobDigest, ChunkDigests: []*repb.Digest{r.ChunkDigests[1], r.ChunkDigests[0], r.ChunkDigests[2], r.ChunkDigests[3]}},
					"too few":       {BlobDigest: r.BlobDigest, ChunkDigests: r.ChunkDigests[:2]},
					"too many":      {BlobDigest: r.BlobDigest, ChunkDigests: append(r.ChunkDigests[:5:5], r.ChunkDigests[0])},
					"none":          {BlobDigest: r.BlobDigest},
					"another size":  {BlobDigest: &repb.Digest{Hash: r.BlobDigest.Hash, SizeBytes: r.BlobDigest.SizeBytes - 10}, ChunkDigests: r.ChunkDigests},
				} {
					wrong.DigestFunction = f.v
					if _, err := h.register(t.Context(), wrong, stream); err == nil {
						t.Errorf("%s: no error", what)
					} else {
						wantCode(t, err, codes.InvalidArgument)
					}
				}
				puts := h.packs.puts.Load()
				for range 2 { // the second finds it
					got, err := h.register(t.Context(), r, stream)
					must(t, err)
					if got.Hash != r.BlobDigest.Hash {
						t.Errorf("it is %v", got)
					}
				}
				if h.packs.puts.Load() != puts {
					t.Error("bytes were stored again")
				}
				q := readRequest(b)
				q.ResourceName = readName(f.fn, d, false)
				got, err := h.read(t.Context(), q)
				must(t, err)
				if !bytes.Equal(got, b) {
					t.Error("other bytes")
				}
				_, cutBy, err := h.split(t.Context(), &repb.SplitBlobRequest{BlobDigest: r.BlobDigest, DigestFunction: f.v}, stream)
				must(t, err)
				if cutBy != repb.ChunkingFunction_UNKNOWN {
					t.Errorf("it is said to be cut by %s", cutBy)
				}
			})
		}
	}
}
