package auth_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestHeaderIsReadAsClientsWriteIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, header, want string
		err                error
	}{
		{"as Attic's client writes it", "bearer a.b.c", "a.b.c", nil},
		{"as the RFC writes it", "Bearer a.b.c", "a.b.c", nil},
		{"shouting", "BEARER a.b.c", "a.b.c", nil},
		{"more spaces", "Bearer   a.b.c ", "a.b.c", nil},
		{"netrc without a login", basic("", "a.b.c"), "a.b.c", nil},
		{"netrc with one", basic("gitlab-ci-token", "a.b.c"), "a.b.c", nil},
		{"a colon in the password", basic("x", "a:b"), "a:b", nil},
		{"basic in small letters", "basic" + basic("x", "t")[5:], "t", nil},
		{"no scheme", "a.b.c", "", auth.ErrHeader},
		{"another scheme", "Digest a.b.c", "", auth.ErrHeader},
		{"no token", "Bearer", "", auth.ErrHeader},
		{"spaces for a token", "Bearer  ", "", auth.ErrHeader},
		{"an empty password", basic("user", ""), "", auth.ErrHeader},
		{"no password", "Basic " + base64.StdEncoding.EncodeToString([]byte("token")), "", auth.ErrHeader},
		{"no base64", "Basic a:b", "", auth.ErrHeader},
		{"the largest", "Bearer " + strings.Repeat("x", auth.MaxToken), strings.Repeat("x", auth.MaxToken), nil},
		{"the largest as a password", basic("user", strings.Repeat("x", auth.MaxToken)), strings.Repeat("x", auth.MaxToken), nil},
		{"too large", "Bearer " + strings.Repeat("x", auth.MaxToken+1), "", auth.ErrTooLarge},
		{"too large as a password", basic("", strings.Repeat("x", auth.MaxToken+1)), "", auth.ErrTooLarge},
		{"huge", "Bearer " + strings.Repeat("x", 1<<20), "", auth.ErrTooLarge},
	} {
		got, err := auth.TokenOf(test.header)
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %.20q, %v; want %.20q, %v", test.name, got, err, test.want, test.err)
		}
	}
}

func TestSwitchedOffEverybodyMayDoEverything(t *testing.T) {
	t.Parallel()
	a, err := auth.New(auth.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if a.Enabled() {
		t.Error("it is on")
	}
	for _, headers := range [][]string{nil, {""}, {"Bearer x"}, {"Bearer x", "Bearer y"}} {
		s := a.FromMetadata(t.Context(), headers)
		if !s.Can(every, "any") || !s.Any("any") || s.Check(every, "any") != nil || s.Name() != "" || s.Problem() != nil {
			t.Errorf("%q: %v", headers, s)
		}
	}
}

func TestWhatADoorAnswers(t *testing.T) {
	t.Parallel()
	a, _ := open(t, auth.Config{Anonymous: []auth.Allow{{Caches: []string{"open"}, Rights: []auth.Right{auth.Pull}}}})
	nobody := a.Authenticate(t.Context(), "")
	token := sign(t, jwt.SigningMethodHS256, secretBytes, nil, attic(map[string]any{
		namespace: map[string]any{"caches": map[string]any{"main": map[string]any{"r": 1}}},
	}))
	reader := a.Authenticate(t.Context(), "Bearer "+token)
	for _, test := range []struct {
		name  string
		s     auth.Subject
		right auth.Right
		cache string
		want  error
	}{
		{"nobody on a cache", nobody, auth.Pull, "main", auth.ErrUnauthorized},
		{"nobody on an open cache", nobody, auth.Pull, "open", nil},
		{"nobody, more than is open", nobody, auth.Push, "open", auth.ErrForbidden},
		{"a reader reads", reader, auth.Pull, "main", nil},
		{"a reader writes", reader, auth.Push, "main", auth.ErrForbidden},
		{"a reader reads and writes", reader, auth.Pull | auth.Push, "main", auth.ErrForbidden},
		{"a door that asks for nothing", reader, 0, "main", auth.ErrForbidden},
		{"a reader elsewhere", reader, auth.Pull, "secret", auth.ErrUnauthorized},
		{"a reader where it is open", reader, auth.Pull, "open", nil},
		{"nobody on a public cache", nobody.With(auth.Pull, "main"), auth.Pull, "main", nil},
		{"nobody writes to a public cache", nobody.With(auth.Pull, "main"), auth.Push, "main", auth.ErrForbidden},
		{"not on its neighbour", nobody.With(auth.Pull, "main"), auth.Pull, "main2", auth.ErrUnauthorized},
		{"a request that nobody looked at", auth.SubjectOf(t.Context()), auth.Pull, "open", auth.ErrUnauthorized},
	} {
		if err := test.s.Check(test.right, test.cache); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	if s := reader.With(auth.Push, "x"); !s.Can(auth.Push, "x") || reader.Can(auth.Push, "x") || reader.Name() != "ci" {
		t.Error("With changed the subject itself")
	}
	if err := nobody.Check(auth.Push, "main"); err.Error() != `not authorized: push on cache "main": no token was sent` {
		t.Error(err)
	}
	if err := reader.Check(auth.Push, "main"); err.Error() != `not permitted: push on cache "main"` {
		t.Error(err)
	}
}

func TestMiddlewareTellsTheDoors(t *testing.T) {
	t.Parallel()
	a, _ := open(t, auth.Config{})
	token := sign(t, jwt.SigningMethodHS256, secretBytes, nil, attic(nil))
	h := a.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := auth.SubjectOf(r.Context())
		fmt.Fprintf(w, "%q %v %v", s.Name(), s.Can(auth.Push, "main"), s.Problem())
	}))
	for _, test := range []struct {
		headers []string
		want    string
	}{
		{nil, `"" false <nil>`},
		{[]string{"bearer " + token}, `"ci" true <nil>`},
		{[]string{basic("", token)}, `"ci" true <nil>`},
		{[]string{"Bearer x"}, `"" false ` + auth.ErrMalformed.Error()},
		{[]string{"bearer " + token, "bearer " + token}, `"" false ` + auth.ErrHeader.Error()},
	} {
		r := httptest.NewRequest(http.MethodPut, "/", nil)
		r.Header["Authorization"] = test.headers
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Body.String(); got != test.want {
			t.Errorf("%.20q: %s, want %s", test.headers, got, test.want)
		}
	}
}

func TestSubjectIsFitForALog(t *testing.T) {
	t.Parallel()
	a, _ := open(t, auth.Config{})
	for sub, want := range map[string]string{
		"a\nb\x1b[31m\u202e":     "a?b?[31m?",
		strings.Repeat("ä", 200): strings.Repeat("ä", 128),
		"grüße":                  "grüße",
	} {
		token := sign(t, jwt.SigningMethodHS256, secretBytes, nil, attic(map[string]any{"sub": sub}))
		if got := a.Authenticate(t.Context(), "Bearer "+token).Name(); got != want {
			t.Errorf("%q: %q, want %q", sub, got, want)
		}
	}
}

func TestSecretsAreNeverLogged(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	c := auth.Config{Enabled: true, HS256Secrets: []auth.Secret{secret}, Keys: []auth.Key{hs256(t)}}
	a, err := auth.New(c, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	token := sign(t, jwt.SigningMethodHS256, secretBytes, nil, attic(map[string]any{"exp": 1}))
	for _, header := range []string{"Bearer " + token, "Bearer " + token[1:], "bearer " + token + "x", "Digest " + token, basic("user", token), basic("u", token+"!"), token} {
		s := a.Authenticate(t.Context(), header)
		if s.Problem() == nil {
			t.Errorf("%.20q was taken", header)
		}
		fmt.Fprintf(&log, "%v %+v %#v %v\n", s, s, s, s.Check(auth.Pull, "main"))
	}
	json := slog.New(slog.NewJSONHandler(&log, nil))
	for _, l := range []*slog.Logger{logTo(&log), json} {
		l.Info("configuration", "config", c, "key", hs256(t), "secret", c.HS256Secrets[0])
	}
	fmt.Fprintf(&log, "%v %+v %#v %s %q\n", c, c, c, c.HS256Secrets, c.HS256Secrets)
	if !strings.Contains(log.String(), "reason") {
		t.Errorf("no refusal is logged:\n%s", log.String())
	}
	numbers := fmt.Sprintf("%v", secretBytes[:8])
	for _, part := range append(strings.Split(token, "."), string(secret), string(secretBytes), strings.Trim(numbers, "[]")) {
		if strings.Contains(log.String(), part) {
			t.Errorf("%.12s… is logged:\n%s", part, log.String())
		}
	}
}

func TestManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	i := issuerWithRSA(t)
	a, clk := open(t, i.trusting(rule("main", map[string]auth.Patterns{"project_path": {"bates/*"}})))
	headers := map[string]bool{
		rs256(t, i.gitlab(nil)): true,
		"Bearer " + sign(t, jwt.SigningMethodHS256, secretBytes, nil, attic(nil)):      true,
		"Bearer " + sign(t, jwt.SigningMethodRS256, rsaKeys()[1], kidA, i.gitlab(nil)): false,
		"Bearer garbage": false,
		"":               false,
	}
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 50 {
				for header, want := range headers {
					if s := a.Authenticate(t.Context(), header); s.Can(auth.Push, "main") != want {
						t.Errorf("%.20q: %v", header, s.Problem())
					}
				}
				clk.advance(auth.FetchPause / 10)
			}
		})
	}
	g.Wait()
}
