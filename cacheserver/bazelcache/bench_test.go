package bazelcache

import (
	"fmt"
	"sync/atomic"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// What Bazel does most: small blobs, one call each, many at once.

func BenchmarkSmallWrites(b *testing.B) {
	h := open(b, Config{})
	var n atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			blob := fmt.Appendf(nil, "small blob %d", n.Add(1))
			if _, err := h.write(b.Context(), writeName("u", 0, name(0, blob), false), 0, blob, len(blob), true); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(h.packs.puts.Load()), "packs")
}

func BenchmarkBatchesOfSmallWrites(b *testing.B) {
	h := open(b, Config{})
	const each = 100
	for i := range b.N {
		r := &repb.BatchUpdateBlobsRequest{}
		for j := range each {
			blob := fmt.Appendf(nil, "small blob %d of %d", j, i)
			r.Requests = append(r.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: sha(blob), Data: blob})
		}
		if _, err := h.cas.BatchUpdateBlobs(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*each)/b.Elapsed().Seconds(), "blobs/s")
}

func BenchmarkSmallReads(b *testing.B) {
	h := open(b, Config{})
	var blobs [][]byte
	for i := range 100 {
		blobs = append(blobs, noise(uint64(i), 2000))
	}
	h.put(b, blobs...)
	b.SetParallelism(16)
	var n atomic.Int64
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := h.read(b.Context(), readRequest(blobs[n.Add(1)%100])); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkFindMissing(b *testing.B) {
	h := open(b, Config{})
	r := &repb.FindMissingBlobsRequest{}
	var blobs [][]byte
	for i := range 1000 {
		blob := noise(uint64(i), 100)
		if i%2 == 0 {
			blobs = append(blobs, blob)
		}
		r.BlobDigests = append(r.BlobDigests, sha(blob))
	}
	h.put(b, blobs...)
	for b.Loop() {
		if _, err := h.cas.FindMissingBlobs(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
