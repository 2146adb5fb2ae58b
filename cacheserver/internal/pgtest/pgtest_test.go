package pgtest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/pgtest"
)

// victim, set in the environment, makes TestAKilledTestLeavesNothing the one that
// is killed.
const victim = "PGTEST_VICTIM"

func TestAKilledTestLeavesNothing(t *testing.T) {
	t.Parallel()
	if os.Getenv(victim) != "" {
		fmt.Println(pgtest.Database(t))
		select {}
	}
	pgtest.Database(t) // skips the test where there is no PostgreSQL
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), victim+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	u, err := url.Parse(lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	dir := u.Query().Get("host")
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the server's directory: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		_, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("%s is still there, %v", dir, err)
		}
	}
}

func TestAServerComesBackWithWhatItHeld(t *testing.T) {
	t.Parallel()
	s := pgtest.New(t, "fsync=on")
	db := s.Database(t)
	exec := func(sql string) error {
		conn, err := pgx.Connect(t.Context(), db)
		if err != nil {
			return err
		}
		_, err = conn.Exec(t.Context(), sql)
		return errors.Join(err, conn.Close(t.Context()))
	}
	if err := exec("CREATE TABLE a (b int)"); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(testing.TB){"stopped": s.Stop, "crashed": s.Crash} {
		end(t)
		if exec("SELECT") == nil {
			t.Errorf("it answers though it was %s", name)
		}
		s.Start(t)
		if err := exec("INSERT INTO a VALUES (1)"); err != nil {
			t.Errorf("after it was %s: %v", name, err)
		}
	}
}
