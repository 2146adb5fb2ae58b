package kubeconfig

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const twoContexts = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts:
- {name: "group/agents:rigel", context: {cluster: c, user: u}}
- {name: "group/agents:beehive", context: {cluster: c, user: u}}
- {name: "broken", context: {cluster: gone, user: u}}
`

// Not parallel: kubectl's rules read KUBECONFIG of the process.
func TestContexts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(twoContexts), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", file)
	if _, err := Connect("group/agents:rigel"); err != nil {
		t.Error(err)
	}
	_, err := Connect("group/agents:hive")
	var unknown *UnknownContextError
	if !errors.As(err, &unknown) || err.Error() != `the kubeconfig has no context "group/agents:hive"; it has broken, group/agents:beehive, group/agents:rigel` {
		t.Error(err)
	}
	if _, err := Connect("broken"); err == nil || !strings.Contains(err.Error(), `context "broken" of the kubeconfig`) {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Connect("x"); err == nil || !strings.HasPrefix(err.Error(), "reading the kubeconfig: ") {
		t.Error(err)
	}
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, name := range []string{"x", ""} {
		if _, err := Connect(name); err == nil || !strings.Contains(err.Error(), "there is no kubeconfig: set KUBECONFIG") {
			t.Error(err)
		}
	}
}
