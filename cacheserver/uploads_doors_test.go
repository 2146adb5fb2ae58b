package cacheserver_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// The doors share the places for uploads; reads need none.
func TestUploadsOfAllDoorsAreLimitedTogether(t *testing.T) {
	t.Parallel()
	s := serveOn(t, cacheserver.Config{Limits: cacheserver.Limits{Uploads: 1}})
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(s.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer func() { _ = conn.Close() }()
	blob := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	name := fmt.Sprintf("uploads/u/blobs/%s/%d", digest.Of(blob), len(blob))
	stream := bytestream.NewByteStreamClient(conn)
	up, err := stream.Write(t.Context())
	must(t, err)
	const sent = 1000
	must(t, up.Send(&bytestream.WriteRequest{ResourceName: name, Data: blob[:sent]}))
	for {
		q, err := stream.QueryWriteStatus(t.Context(), &bytestream.QueryWriteStatusRequest{ResourceName: name})
		must(t, err)
		if q.CommittedSize == sent {
			break
		}
		time.Sleep(time.Millisecond)
	}

	other := []byte("another")
	id := &repb.Digest{Hash: digest.Of(other).String(), SizeBytes: int64(len(other))}
	storage := repb.NewContentAddressableStorageClient(conn)
	batch := func(ctx context.Context) error {
		_, err := storage.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: id, Data: other}}})
		return err
	}
	put := func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url+"/cas/"+id.Hash, bytes.NewReader(other))
		must(t, err)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		if res.StatusCode >= 300 {
			t.Errorf("PUT: %s", res.Status)
		}
		return res.Body.Close()
	}
	for name, upload := range map[string]func(context.Context) error{"BatchUpdateBlobs": batch, "PUT": put} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := upload(ctx); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%s beyond the limit: %v", name, err)
		}
		cancel()
	}
	missing, err := storage.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{id}})
	must(t, err)
	if len(missing.MissingBlobDigests) != 1 {
		t.Error("what was not let in is stored")
	}

	must(t, up.Send(&bytestream.WriteRequest{WriteOffset: sent, Data: blob[sent:], FinishWrite: true}))
	_, err = up.CloseAndRecv()
	must(t, err)
	must(t, batch(t.Context()))
	must(t, put(t.Context()))
}
