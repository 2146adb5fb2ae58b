package cacheserver_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

// Every request has one line, which names its door and who made it, and nothing
// secret.
func TestALineOfTheLogNamesDoorAndCaller(t *testing.T) {
	t.Parallel()
	secret := auth.GenerateHS256()
	key, err := auth.ParseHS256(secret)
	must(t, err)
	rights, err := auth.NewRights(auth.Grant{Pattern: "main", Rights: auth.Pull})
	must(t, err)
	token, err := auth.Sign(auth.Claims{Subject: "somebody", Rights: rights}, key)
	must(t, err)
	var text bytes.Buffer
	url, stop, ended := serving(t, cacheserver.Config{
		Data: t.TempDir(), Auth: auth.Config{Enabled: true, Keys: []auth.Key{key}},
		Log: slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	for _, route := range []string{"/main/nix-cache-info", "/main/_push/v1", "/_api/v1/cache-config/main", "/cas/" + strings.Repeat("0", 64), "/healthz"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+route+"?token="+token, nil)
		must(t, err)
		req.SetBasicAuth("", token)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		resp.Body.Close()
	}
	conn, err := grpc.NewClient(strings.TrimPrefix(url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	_, err = repb.NewCapabilitiesClient(conn).GetCapabilities(ctx, &repb.GetCapabilitiesRequest{})
	must(t, err)
	must(t, conn.Close())
	stop()
	if err := ended.Wait(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`path=/main/nix-cache-info status=200 bytes=\d+ seconds=\S+ door=nix caller=somebody from=`,
		`path=/main/_push/v1 status=200 .* door=push caller=somebody`,
		`path=/_api/v1/cache-config/main status=200 .* door=attic caller=somebody`,
		`path=/cas/0{64} status=404 .* door=bazel caller=somebody`,
		`path=/healthz status=200 .* door="" caller=""`,
		`method=gRPC path=/\S+/GetCapabilities status=OK bytes=[1-9]\d* seconds=\S+ door=bazel caller=somebody from=127`,
	} {
		if n := len(regexp.MustCompile(want).FindAllString(text.String(), -1)); n != 1 {
			t.Errorf("%d lines like %s", n, want)
		}
	}
	if strings.Contains(text.String(), token) {
		t.Error("the token is in the log")
	}
	if t.Failed() {
		t.Logf("%s", text.Bytes())
	}
}
