package cacheserver_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
)

// guardedServer is a server that asks for tokens, with a cache that is private and
// one that is public.
type guardedServer struct {
	http string
	grpc map[string]*grpc.ClientConn // beside HTTP, and alone
	key  auth.Key
}

func startGuarded(t *testing.T) *guardedServer {
	t.Helper()
	secret := auth.GenerateHS256()
	key, err := auth.ParseHS256(secret)
	must(t, err)
	s, err := cacheserver.Open(t.Context(), cacheserver.Config{Data: t.TempDir(), Auth: auth.Config{Enabled: true, HS256Secrets: []auth.Secret{secret}}})
	must(t, err)
	for _, name := range []string{"private", "public"} {
		signing, err := narinfo.GenerateKey(name)
		must(t, err)
		must(t, s.Index.Update(t.Context(), func(tx index.Tx) error {
			_, err := tx.AddCache(index.Cache{
				Name: name, StoreDir: "/nix/store", SecretKeys: []string{signing.Reveal()}, Public: name == "public", Retention: index.GlobalRetention,
			})
			return err
		}))
	}
	ctx, stop := context.WithCancel(t.Context())
	both, alone := listen(t), listen(t)
	var served errgroup.Group
	served.Go(func() error { return s.Serve(ctx, both, alone) })
	g := &guardedServer{http: "http://" + both.Addr().String(), grpc: map[string]*grpc.ClientConn{}, key: key}
	for where, l := range map[string]string{"": both.Addr().String(), ", alone on a port": alone.Addr().String()} {
		g.grpc[where], err = grpc.NewClient("passthrough:///"+l, grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(t, err)
	}
	t.Cleanup(func() {
		for _, conn := range g.grpc {
			must(t, conn.Close())
		}
		stop()
		must(t, served.Wait())
		must(t, s.Close())
	})
	return g
}

func (g *guardedServer) token(t *testing.T, cache string, rights auth.Right, lives time.Duration) string {
	t.Helper()
	text, err := auth.Sign(auth.Claims{Subject: "tester", Expires: time.Now().Add(lives), Rights: auth.Rights{{Pattern: cache, Rights: rights}}}, g.key)
	must(t, err)
	return text
}

// over asks by HTTP, with a token as bearer, and tells the status.
func (g *guardedServer) over(method, route, body string, header ...string) func(context.Context, string) string {
	return func(ctx context.Context, token string) string {
		return g.send(ctx, method, route, body, append(header, "Authorization", "bearer "+token), token == "")
	}
}

// netrc asks by HTTP as clients do that have the token in their netrc.
func (g *guardedServer) netrc(method, route, body string) func(context.Context, string) string {
	return func(ctx context.Context, token string) string {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(":"+token))
		return g.send(ctx, method, route, body, []string{"Authorization", basic}, token == "")
	}
}

func (g *guardedServer) send(ctx context.Context, method, route, body string, header []string, anonymous bool) string {
	req, err := http.NewRequestWithContext(ctx, method, g.http+route, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] != "Authorization" || !anonymous {
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") == "" {
		return "401 without a challenge"
	}
	return fmt.Sprint(resp.StatusCode)
}

// call asks by gRPC and tells the code.
func call(conn *grpc.ClientConn, ask func(context.Context, *grpc.ClientConn) error) func(context.Context, string) string {
	return func(ctx context.Context, token string) string {
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		return status.Code(ask(ctx, conn)).String()
	}
}

// Every door gives the same rights, in the words that its clients understand: a
// token that is none is as no token, and of what somebody may read, what is absent
// is 404, never 401, at which Nix would give the cache up.
func TestTheTableOfRights(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	stranger := startGuarded(t)
	const instance = "private"
	contents := []byte("contents")
	name := &repb.Digest{Hash: digest.Of(contents).String(), SizeBytes: int64(len(contents))}
	absent, drv := hash32("absent"), base("x")+".drv"

	type row struct {
		what  string
		ask   func(context.Context, string) string
		right auth.Right
		want  string // without a token, a wrong one, an expired one, another cache's, without the right, with it
	}
	const (
		open     = "200 200 200 200 200 200"
		there    = "401 401 401 401 403 200"
		taken    = "401 401 401 401 403 204"
		missing  = "401 401 401 401 403 404"
		called   = "Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied OK"
		uncalled = "Unauthenticated Unauthenticated Unauthenticated Unauthenticated PermissionDenied NotFound"
	)
	rows := []row{
		{"nix reads", g.over("GET", "/private/nix-cache-info", ""), auth.Pull, there},
		{"nix reads, netrc", g.netrc("GET", "/private/nix-cache-info", ""), auth.Pull, there},
		{"nix reads what is absent", g.over("GET", "/private/"+absent+".narinfo", ""), auth.Pull, missing},
		{"nix asks for what is absent", g.over("HEAD", "/private/"+absent+".narinfo", ""), auth.Pull, missing},
		{"nix reads a NAR that is absent", g.over("GET", "/private/nar/"+digest.Of(nil).Nix32()+".nar.zst", ""), auth.Pull, missing},
		{"nix reads a public cache", g.over("GET", "/public/nix-cache-info", ""), auth.Pull, open},
		{"nix reads from no cache", g.over("GET", "/none/nix-cache-info", ""), auth.Pull, "401 401 401 401 401 401"},
		{"nix copy", g.over("PUT", "/private/log/"+drv, "a log"), auth.Push, taken},
		{"nix copy, netrc", g.netrc("PUT", "/private/log/"+drv, "a log"), auth.Push, taken},
		{"nix copy to a public cache", g.over("PUT", "/public/log/"+drv, "a log"), auth.Push, "403 403 403 403 403 403"},
		{"a path that is absent is removed", g.over("DELETE", "/private/"+absent+".narinfo", ""), auth.Delete, missing},
		{"push protocol, begin", g.over("GET", "/private/_push/v1", ""), auth.Push, "401 401 401 401 200 200"},
		{"push protocol, query", g.over("POST", "/private/_push/v1/missing-paths", `{"hashes":[]}`), auth.Push, there},
		{"push protocol, chunks", g.over("POST", "/private/_push/v1/chunks", ""), auth.Push, taken},
		{"Attic, configuration", g.over("GET", "/_api/v1/cache-config/private", ""), auth.Pull, there},
		{"Attic, query", g.over("POST", "/_api/v1/get-missing-paths", `{"cache":"private","store_path_hashes":[]}`), auth.Push, there},
		{"Attic, upload", g.over("PUT", "/_api/v1/upload-path", "", "X-Attic-Nar-Info", `{"cache":"private"}`), auth.Push, "401 401 401 401 403 500"}, // InvalidStorePathHash
		{"Attic, configure", g.over("PATCH", "/_api/v1/cache-config/private", `{"priority":3}`), auth.Configure, there},
		{"Bazel HTTP, blob", g.over("GET", "/private/cas/"+digest.Of(nil).String(), ""), auth.Pull, there},
		{"Bazel HTTP, netrc", g.netrc("GET", "/private/cas/"+digest.Of(nil).String(), ""), auth.Pull, there},
		{"Bazel HTTP, result that is absent", g.over("GET", "/private/ac/"+digest.Of(nil).String(), ""), auth.Pull, missing},
		{"Bazel HTTP, put", g.over("PUT", "/private/cas/"+name.Hash, string(contents)), auth.Push, taken},
	}
	for where, conn := range g.grpc {
		rows = append(rows,
			row{"Bazel gRPC, capabilities" + where, call(conn, func(ctx context.Context, c *grpc.ClientConn) error {
				_, err := repb.NewCapabilitiesClient(c).GetCapabilities(ctx, &repb.GetCapabilitiesRequest{InstanceName: instance})
				return err
			}), auth.Pull, called},
			row{"Bazel gRPC, find" + where, call(conn, func(ctx context.Context, c *grpc.ClientConn) error {
				_, err := repb.NewContentAddressableStorageClient(c).FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{InstanceName: instance})
				return err
			}), auth.Pull, called},
			row{"Bazel gRPC, result that is absent" + where, call(conn, func(ctx context.Context, c *grpc.ClientConn) error {
				_, err := repb.NewActionCacheClient(c).GetActionResult(ctx, &repb.GetActionResultRequest{InstanceName: instance, ActionDigest: name})
				return err
			}), auth.Pull, uncalled},
			row{"Bazel gRPC, stream that is absent" + where, call(conn, func(ctx context.Context, c *grpc.ClientConn) error {
				r, err := bytestream.NewByteStreamClient(c).Read(ctx, &bytestream.ReadRequest{ResourceName: fmt.Sprintf("%s/blobs/%s/1", instance, strings.Repeat("0", 64))})
				if err == nil {
					_, err = r.Recv()
				}
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}), auth.Pull, uncalled},
			row{"Bazel gRPC, update" + where, call(conn, func(ctx context.Context, c *grpc.ClientConn) error {
				_, err := repb.NewContentAddressableStorageClient(c).BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
					InstanceName: instance, Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: name, Data: contents}},
				})
				return err
			}), auth.Push, called},
		)
	}
	var all auth.Right
	for _, r := range auth.AllRights() {
		all |= r
	}
	columns := []struct {
		who   string
		token func(own auth.Right, cache string) string
	}{
		{"no token", func(auth.Right, string) string { return "" }},
		{"wrong token", func(auth.Right, string) string { return stranger.token(t, "*", all, time.Hour) }},
		{"expired", func(auth.Right, string) string { return g.token(t, "*", all, -time.Hour) }},
		{"another cache's", func(auth.Right, string) string { return g.token(t, "another", all, time.Hour) }},
		{"without the right", func(own auth.Right, cache string) string { return g.token(t, cache, all&^own, time.Hour) }},
		{"with the right", func(own auth.Right, cache string) string { return g.token(t, cache, own, time.Hour) }},
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\t")
	for _, c := range columns {
		fmt.Fprintf(w, "%s\t", c.who)
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t", r.what)
		for i, want := range strings.Fields(r.want) {
			got := r.ask(t.Context(), columns[i].token(r.right, "private"))
			if got != want {
				got += ", not " + want + " !"
				t.Fail()
			}
			fmt.Fprintf(w, "%s\t", got)
		}
		fmt.Fprintln(w)
	}
	must(t, w.Flush())
	if t.Failed() {
		t.Log("\n" + table.String())
	}
}
