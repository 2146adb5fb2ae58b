package cacheserver_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

func TestBazelIsAnsweredBesideNix(t *testing.T) {
	t.Parallel()
	srv, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: t.TempDir()})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	both, alone := listen(t), listen(t)
	var served errgroup.Group
	served.Go(func() error { return srv.Serve(ctx, both, alone) })

	for _, l := range []net.Listener{both, alone} {
		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(t, err)
		caps, err := repb.NewCapabilitiesClient(conn).GetCapabilities(ctx, &repb.GetCapabilitiesRequest{})
		must(t, err)
		if !caps.CacheCapabilities.ActionCacheUpdateCapabilities.UpdateEnabled || caps.LowApiVersion.Major != 2 || caps.LowApiVersion.Minor != 0 {
			t.Errorf("capabilities: %v", caps)
		}
		health, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		must(t, err)
		if health.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health: %v", health)
		}
		r, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
		must(t, err)
		must(t, r.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}))
		services, err := r.Recv()
		must(t, err)
		for _, want := range []string{"ActionCache", "Capabilities", "ContentAddressableStorage", "ByteStream", "Health"} {
			if !strings.Contains(services.String(), "."+want+`"`) {
				t.Errorf("%s is not among the services: %v", want, services)
			}
		}
		must(t, r.CloseSend())
		must(t, conn.Close())
	}
	for path, want := range map[string]int{
		"/cas/" + digest.Of(nil).String(): http.StatusOK, "/some/instance/ac/" + digest.Of(nil).String(): http.StatusNotFound,
		"/nix-cache-info": http.StatusOK, "/main/nix-cache-info": http.StatusOK, "/healthz": http.StatusOK,
	} {
		resp, err := http.Get("http://" + both.Addr().String() + path)
		must(t, err)
		must(t, resp.Body.Close())
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
	cancel()
	must(t, served.Wait())
	must(t, srv.Close())
}

func TestANARThatIsABazelOutputIsStoredOnce(t *testing.T) {
	t.Parallel()
	for what, size := range map[string]int{"one chunk": 10_000, "several": 1 << 20, "streamed": 5 << 20} {
		for _, first := range []string{"Bazel", "Nix"} {
			t.Run(what+", first "+first, func(t *testing.T) {
				t.Parallel()
				s := start(t)
				p := file(t, "hello", noise(size, 1))
				put := func() {
					s.do(t, http.MethodPut, "/cas/"+digest.Of(p.nar).String(), nil, bytes.NewReader(p.nar)).want(t, http.StatusNoContent, "")
				}
				if first == "Bazel" {
					put()
				} else {
					s.push(t, p)
				}
				before, err := s.Index.Usage(t.Context())
				must(t, err)
				if first == "Bazel" {
					s.push(t, p)
				} else {
					put()
				}
				after, err := s.Index.Usage(t.Context())
				must(t, err)
				if after.Blobs != 1 || after.PackBytes != before.PackBytes {
					t.Errorf("%d blobs, packs of %d bytes that had %d", after.Blobs, after.PackBytes, before.PackBytes)
				}
				s.wantServed(t, p)
				// The client takes zstd, so it is sent the frames as they lie.
				if r := s.get(t, "/cas/"+digest.Of(p.nar).String()); !bytes.Equal(unpack(t, r.body), p.nar) {
					t.Errorf("status %d, other bytes", r.status)
				}
			})
		}
	}
}
