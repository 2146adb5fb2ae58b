package cacheserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// missingChunks is how many of the frames' chunks are not stored.
func (s *running) missingChunks(t testing.TB, frames ...pack.Frame) int {
	t.Helper()
	var ask []digest.Hash
	for _, f := range frames {
		ask = append(ask, f.Hash)
	}
	r := s.post(t, "missing-chunks", push.AppendHashes(nil, ask))
	r.want(t, http.StatusOK, "")
	got, err := push.ReadHashes(bytes.NewReader(r.body), len(ask))
	must(t, err)
	return len(got)
}

func TestChunksThatAreRefused(t *testing.T) {
	t.Parallel()
	good := []pack.Frame{frameOf([]byte("one")), frameOf([]byte("two"))}
	record := func(change func(f *pack.Frame)) []byte {
		f := frameOf([]byte("three"))
		change(&f)
		return push.AppendFrame(nil, f)
	}
	same := func(*pack.Frame) {}
	for name, c := range map[string]struct {
		bad  []byte // behind two good records
		code string
	}{
		"another hash":     {record(func(f *pack.Frame) { f.Hash[0]++ }), push.CodeMismatch},
		"another size":     {record(func(f *pack.Frame) { f.Size++ }), push.CodeMismatch},
		"another frame":    {record(func(f *pack.Frame) { f.Data = frame.Encode(nil, []byte("drei")) }), push.CodeMismatch},
		"two frames":       {record(func(f *pack.Frame) { f.Data = frame.Encode(f.Data, []byte("x")) }), push.CodeMalformed},
		"no frame":         {record(func(f *pack.Frame) { f.Data = []byte("three") }), push.CodeMalformed},
		"a size of 0":      {record(func(f *pack.Frame) { f.Size = 0 }), push.CodeMalformed},
		"a size of 4 GiB":  {record(func(f *pack.Frame) { f.Size = 1<<32 - 1 }), push.CodeMalformed},
		"an empty frame":   {record(func(f *pack.Frame) { f.Data = nil }), push.CodeMalformed},
		"a record cut off": {record(same)[:45], push.CodeMalformed},
		"a byte too many":  {append(record(same), 0), push.CodeMalformed},
		"a bomb":           {record(func(f *pack.Frame) { f.Data = frame.Encode(nil, make([]byte, 64<<20)); f.Size = frame.MaxChunk }), push.CodeMalformed},
		"text":             {[]byte(strings.Repeat("hello ", 100)), push.CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			body := push.AppendFrame(push.AppendFrame(nil, good[0]), good[1])
			s.post(t, "chunks", append(body, c.bad...)).want(t, http.StatusBadRequest, c.code)
			if n := s.missingChunks(t, append(good, frameOf([]byte("three")))...); n != 3 {
				t.Errorf("%d chunks are missing, want all 3: one bad record refuses the request", n)
			}
			if files := packFiles(t, s.dir); len(files) != 0 {
				t.Errorf("it left %v", files)
			}
			s.post(t, "chunks", body).want(t, http.StatusNoContent, "")
			if n := s.missingChunks(t, good...); n != 0 {
				t.Errorf("%d chunks are missing after a good request", n)
			}
		})
	}
}

func TestCommitsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	for name, c := range map[string]struct {
		change func(n *narinfo.NarInfo, chunks []digest.Chunk) []digest.Chunk
		code   string
	}{
		"another NarHash": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.NarHash[0]++; return c }, push.CodeMismatch},
		"chunks in another order": {func(_ *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			slices.Reverse(c)
			return c
		}, push.CodeMalformed}, // that it is no NAR is seen first
		"sizes of chunks changed": {func(_ *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			c[0].Size++
			c[1].Size--
			return c
		}, push.CodeMismatch},
		"a chunk instead of another": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			n.NarSize += int64(c[0].Size) - int64(c[1].Size)
			c[1] = c[0]
			return c
		}, push.CodeMalformed},
		"a longer NarSize":  {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.NarSize++; return c }, push.CodeMalformed},
		"a shorter NarSize": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.NarSize--; return c }, push.CodeMalformed},
		"a NarSize of 2^63": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.NarSize = 1<<63 - 1; return c }, push.CodeMalformed},
		"no chunks":         {func(*narinfo.NarInfo, []digest.Chunk) []digest.Chunk { return nil }, push.CodeMalformed},
		"a chunk too few":   {func(_ *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { return c[1:] }, push.CodeMalformed},
		"a chunk too many":  {func(_ *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { return append(c, c[0]) }, push.CodeMalformed},
		"another store": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			n.StorePath = strings.Replace(n.StorePath, "/nix/", "/gnu/", 1)
			return c
		}, push.CodeMalformed},
		"a file in a path": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.StorePath += "/bin"; return c }, push.CodeMalformed},
		"a base name":      {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.StorePath = n.StorePath[11:]; return c }, push.CodeMalformed},
		"a path that climbs": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			n.StorePath = "/nix/store/../" + n.StorePath[11:]
			return c
		}, push.CodeMalformed},
		"a hash cut off": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			n.StorePath = "/nix/store/" + n.StorePath[12:]
			return c
		}, push.CodeMalformed},
		"no name":             {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.StorePath = n.StorePath[:44]; return c }, push.CodeMalformed},
		"a name with a space": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.StorePath += " x"; return c }, push.CodeMalformed},
		"a full reference": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			n.References = []string{n.StorePath}
			return c
		}, push.CodeMalformed},
		"an empty reference": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			n.References = []string{"", base("x")}
			return c
		}, push.CodeMalformed},
		"a full deriver":     {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.Deriver = n.StorePath; return c }, push.CodeMalformed},
		"an empty signature": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.Signatures = []string{""}; return c }, push.CodeMalformed},
		"two signatures in one": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk {
			n.Signatures = []string{"a:b c:d"}
			return c
		}, push.CodeMalformed},
		"a CA with a space": {func(n *narinfo.NarInfo, c []digest.Chunk) []digest.Chunk { n.CA = "a b"; return c }, push.CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := s.client(t)
			p := file(t, "refused-"+hash32(name), append([]byte(name), noise(400_000, 1)...))
			p.info.NarHash = digest.Of(p.nar)
			chunks := upload(t, cl, p)
			if len(chunks) < 2 {
				t.Fatalf("%d chunks, the test needs two", len(chunks))
			}
			n := *p.info
			list := c.change(&n, slices.Clone(chunks))
			s.post(t, "paths", push.AppendCommit(nil, &n, list)).want(t, http.StatusBadRequest, c.code)
			s.wantAbsent(t, p)
			// What was refused left nothing that a good commit could stumble on.
			_, err := cl.Commit(t.Context(), p.info, chunks)
			must(t, err)
			s.wantServed(t, p)
		})
	}
}

func TestBytesThatAreNoNARAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	good := file(t, "good", noise(300_000, 1)).nar
	for name, bytes := range map[string][]byte{
		"text":               []byte("hello"),
		"a NAR cut off":      good[:len(good)-8],
		"a NAR and a byte":   append(slices.Clone(good), 0),
		"two NARs":           append(slices.Clone(good), good...),
		"a lie in the magic": append([]byte{14}, good[1:]...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := file(t, strings.ReplaceAll(name, " ", "-"), nil)
			p.nar, p.info.NarHash, p.info.NarSize = bytes, digest.Of(bytes), int64(len(bytes))
			chunks := upload(t, s.client(t), p)
			s.post(t, "paths", push.AppendCommit(nil, p.info, chunks)).want(t, http.StatusBadRequest, push.CodeMalformed)
			s.wantAbsent(t, p)
		})
	}
}

func TestACommitNamesTheChunksThatAreMissing(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "hello", noise(120_000, 1))
	var frames []pack.Frame
	var chunks []digest.Chunk
	for b := range slices.Chunk(p.nar, 100) {
		frames = append(frames, frameOf(b))
		chunks = append(chunks, frames[len(frames)-1].Chunk)
	}
	e := s.post(t, "paths", push.AppendCommit(nil, p.info, chunks)).want(t, http.StatusConflict, push.CodeMissingChunks)
	if len(e.Missing) != 1000 || !strings.Contains(e.Message, fmt.Sprint(len(chunks))) {
		t.Errorf("%d are named, want 1000; the message is %q", len(e.Missing), e.Message)
	}
	s.wantAbsent(t, p)

	var body []byte
	for i, f := range frames {
		if i != 17 && i != 1100 {
			body = push.AppendFrame(body, f)
		}
	}
	s.post(t, "chunks", body).want(t, http.StatusNoContent, "")
	e = s.post(t, "paths", push.AppendCommit(nil, p.info, chunks)).want(t, http.StatusConflict, push.CodeMissingChunks)
	if want := []string{frames[17].Hash.String(), frames[1100].Hash.String()}; !slices.Equal(e.Missing, want) {
		t.Errorf("missing %v, want %v", e.Missing, want)
	}
	s.wantAbsent(t, p)

	s.post(t, "chunks", push.AppendFrame(push.AppendFrame(nil, frames[17]), frames[1100])).want(t, http.StatusNoContent, "")
	_, err := s.client(t).Commit(t.Context(), p.info, chunks)
	must(t, err)
	s.wantServed(t, p)
}

func TestReferencesThatAreAbsentAreReported(t *testing.T) {
	t.Parallel()
	s := start(t)
	dep := file(t, "dep", []byte("dep"))
	p := file(t, "hello", []byte("hello"), base("dep"), base("hello"), base("never"), base("never"))
	if absent := s.push(t, p); !slices.Equal(slices.Sorted(slices.Values(absent)), slices.Sorted(slices.Values([]string{base("dep"), base("never")}))) {
		t.Errorf("absent: %v, want dep and never, each once", absent)
	}
	n := s.wantServed(t, p)
	if want := slices.Sorted(slices.Values([]string{base("dep"), base("hello"), base("never")})); !slices.Equal(n.References, want) {
		t.Errorf("references %v, want %v", n.References, want)
	}
	if absent := s.push(t, dep); len(absent) != 0 {
		t.Errorf("absent: %v", absent)
	}
	if absent := s.push(t, p); !slices.Equal(absent, []string{base("never")}) {
		t.Errorf("absent: %v, want never", absent)
	}
}

func TestAPathPushedAgainIsReplaced(t *testing.T) {
	t.Parallel()
	s := start(t)
	first := file(t, "hello", noise(300_000, 1), base("dep"))
	first.info.Deriver, first.info.CA, first.info.Signatures = base("hello.drv"), "fixed:x", []string{"a:b"}
	s.push(t, first)
	s.wantServed(t, first)

	second := file(t, "hello", noise(300_000, 2))
	s.push(t, second)
	n := s.wantServed(t, second)
	if len(n.References) != 0 || n.Deriver != "" || n.CA != "" || len(n.Signatures) != 1 {
		t.Errorf("something of the first is left:\n%s", n.Text())
	}
	// The same contents, more said of them.
	second.info.References = []string{base("dep")}
	s.push(t, second)
	if n := s.wantServed(t, second); !slices.Equal(n.References, second.info.References) {
		t.Errorf("the references of the last push are not there:\n%s", n.Text())
	}
}

func TestTwoPathsOfTheSameContents(t *testing.T) {
	t.Parallel()
	s := start(t)
	p, q := file(t, "one", noise(300_000, 1)), file(t, "two", noise(300_000, 1))
	s.push(t, p)
	packs := len(packFiles(t, s.dir))
	s.push(t, q)
	if a, b := s.wantServed(t, p), s.wantServed(t, q); a.URL != b.URL || len(packFiles(t, s.dir)) != packs {
		t.Errorf("%s and %s, %d packs instead of %d: the contents are stored twice", a.URL, b.URL, len(packFiles(t, s.dir)), packs)
	}
}

func TestQueriesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	hash := hash32("x")
	for name, body := range map[string]string{
		"nothing":              "",
		"no JSON":              "hello",
		"JSON cut off":         `{"hashes":["` + hash + `"`,
		"another type":         `{"hashes":"` + hash + `"}`,
		"a list":               `["` + hash + `"]`,
		"numbers":              `{"hashes":[1]}`,
		"a whole path":         `{"hashes":["/nix/store/` + hash + `-x"]}`,
		"capitals":             `{"hashes":["` + strings.ToUpper(hash) + `"]}`,
		"a short hash":         `{"hashes":["` + hash[1:] + `"]}`,
		"an empty hash":        `{"hashes":[""]}`,
		"a quote":              `{"hashes":["' OR 1=1 --                      "]}`,
		"a good one and a bad": `{"hashes":["` + hash + `","x"]}`,
		"two queries":          `{"hashes":["` + hash + `"]}{"hashes":["` + hash + `"]}`,
		"junk behind":          `{"hashes":["` + hash + `"]} and more`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.post(t, "missing-paths", []byte(body)).want(t, http.StatusBadRequest, push.CodeMalformed)
		})
	}
	for _, body := range []string{`{"hashes":[]}`, `{"hashes":null}`, `{}`, `{"hashes":[],"more":1}`, "{}\n"} {
		if r := s.post(t, "missing-paths", []byte(body)); r.status != 200 || strings.TrimSpace(string(r.body)) != `{"missing":[]}` {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	s.post(t, "missing-chunks", []byte("x")).want(t, http.StatusBadRequest, push.CodeMalformed)
	if r := s.post(t, "missing-chunks", nil); r.status != 200 || len(r.body) != 0 {
		t.Errorf("no chunks: %d %q", r.status, r.body)
	}
	if r := s.post(t, "chunks", nil); r.status != http.StatusNoContent {
		t.Errorf("no chunks: %d %q", r.status, r.body)
	}
}

// tooLong is a body of each route that is over its limit, but wrong in nothing
// else until there.
func tooLong(route string) (limit int, body io.Reader) {
	endless := func(b []byte, n int) io.Reader {
		var parts []io.Reader
		for range n/len(b) + 1 {
			parts = append(parts, bytes.NewReader(b))
		}
		return io.MultiReader(parts...)
	}
	switch route {
	case "missing-paths":
		return push.MaxPathsBody, io.MultiReader(strings.NewReader(`{"hashes":["`+hash32("x")+`"`), endless([]byte(`,"`+hash32("x")+`"`), push.MaxPathsBody))
	case "missing-chunks":
		return push.MaxChunksPerQuery * digest.Size, endless(make([]byte, digest.Size), push.MaxChunksPerQuery*digest.Size)
	case "chunks":
		return push.MaxChunksBody, endless(push.AppendFrame(nil, frameOf(noise(1<<20, 1))), push.MaxChunksBody)
	}
	n := &narinfo.NarInfo{StorePath: "/nix/store/" + base("x"), NarHash: digest.Of(nil), NarSize: 1 << 60}
	head := push.AppendCommit(nil, n, nil)
	return push.MaxCommitBody, io.MultiReader(bytes.NewReader(head), endless(bytes.Repeat(append(make([]byte, 35), 1), 1000), push.MaxCommitBody))
}

func TestBodiesOverTheLimitAreRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	t.Run("refused", func(t *testing.T) {
		for _, route := range []string{"missing-paths", "missing-chunks", "chunks", "paths"} {
			t.Run(route, func(t *testing.T) {
				t.Parallel()
				sayTooMuch(t, s, route)
				sendTooMuch(t, s, route)
			})
		}
	})
	p := file(t, "hello", []byte("hello"))
	s.push(t, p)
	s.wantServed(t, p)
}

// sayTooMuch announces a body over the limit: it is refused before a byte of it
// is sent.
func sayTooMuch(t *testing.T, s *running, route string) {
	t.Helper()
	limit, _ := tooLong(route)
	c := dial(t, s.http.Listener.Addr().String())
	c.write(t, "POST /main/_push/v1/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", route, limit+1)
	wantTooLarge(t, c, limit)
}

// sendTooMuch sends such a body without saying how long it will be.
func sendTooMuch(t *testing.T, s *running, route string) {
	t.Helper()
	limit, body := tooLong(route)
	c := dial(t, s.http.Listener.Addr().String())
	c.write(t, "POST /main/_push/v1/%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", route)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		buf := make([]byte, 64<<10)
		for {
			n, err := io.ReadFull(body, buf)
			if _, werr := fmt.Fprintf(c, "%x\r\n%s\r\n", n, buf[:n]); err != nil || werr != nil {
				return // refused in the middle, as it should be
			}
		}
	}()
	wantTooLarge(t, c, limit)
	must(t, c.Close())
	<-sent
}

func wantTooLarge(t *testing.T, c *raw, limit int) {
	t.Helper()
	r, ok := c.reply(t)
	if !ok {
		t.Fatal("no answer")
	}
	e := r.want(t, http.StatusRequestEntityTooLarge, push.CodeTooLarge)
	if e.Limit != int64(limit) || !strings.Contains(e.Message, fmt.Sprint(limit)) {
		t.Errorf("the limit is said to be %d in %q, it is %d", e.Limit, e.Message, limit)
	}
}

// A body of exactly the limit is taken.
func TestTheLongestQueryOfChunks(t *testing.T) {
	t.Parallel()
	s := start(t)
	one := noise(digest.Size, 1)
	r := s.post(t, "missing-chunks", bytes.Repeat(one, push.MaxChunksPerQuery))
	if r.status != 200 || !bytes.Equal(r.body, one) {
		t.Errorf("status %d, %d bytes", r.status, len(r.body))
	}
}

func TestPushesToAnUnknownCache(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := file(t, "hello", []byte("hello"))
	f := frameOf(p.nar)
	query, err := json.Marshal(push.PathsQuery{Hashes: []string{storepath.Hash(p.info.StorePath)}})
	must(t, err)
	for route, body := range map[string][]byte{
		"missing-paths":  query,
		"missing-chunks": push.AppendHashes(nil, []digest.Hash{f.Hash}),
		"chunks":         push.AppendFrame(nil, f),
		"paths":          push.AppendCommit(nil, p.info, []digest.Chunk{f.Chunk}),
	} {
		r := s.do(t, http.MethodPost, "/other/_push/v1/"+route, nil, bytes.NewReader(body))
		must(t, r.broken)
		r.want(t, http.StatusNotFound, push.CodeNoSuchCache)
	}
	if n := s.missingChunks(t, f); n != 1 {
		t.Error("a chunk for an unknown cache was stored")
	}
	s.wantAbsent(t, p)
}

// However a body breaks off, even between two records, what came of it is not
// taken for the whole.
func TestABodyThatBreaksOffStoresNothing(t *testing.T) {
	t.Parallel()
	p := file(t, "hello", noise(200_000, 1))
	var frames []pack.Frame
	var chunks []digest.Chunk
	var body []byte
	ends := []int{0}
	for b := range slices.Chunk(p.nar, 50_000) {
		f := frameOf(b)
		frames, chunks = append(frames, f), append(chunks, f.Chunk)
		body = push.AppendFrame(body, f)
		ends = append(ends, len(body))
	}
	commit := push.AppendCommit(nil, p.info, chunks)
	for name, c := range map[string]struct {
		route string
		body  []byte
		sent  int // of the body, before the connection ends
	}{
		"chunks, none of the body":    {"chunks", body, 0},
		"chunks, within a record":     {"chunks", body, ends[2] + 100},
		"chunks, between two records": {"chunks", body, ends[2]},
		"chunks, a byte before":       {"chunks", body, len(body) - 1},
		"chunks, the end is not said": {"chunks", append(slices.Clone(body), 0), len(body)},
		"paths, none of the body":     {"paths", commit, 0},
		"paths, within the narinfo":   {"paths", commit, 30},
		"paths, between two chunks":   {"paths", commit, len(commit) - 36},
		"paths, the end is not said":  {"paths", append(slices.Clone(commit), 0), len(commit)},
	} {
		for _, how := range []string{"length", "chunked"} {
			for _, end := range []string{"half-closed", "closed", "reset"} {
				t.Run(fmt.Sprintf("%s, %s, %s", name, how, end), func(t *testing.T) {
					t.Parallel()
					dir := t.TempDir()
					t.Run("broken", func(t *testing.T) { // at its end, no request is under way any more
						s := startAt(t, dir)
						if c.route == "paths" {
							s.post(t, "chunks", body).want(t, http.StatusNoContent, "")
						}
						conn := dial(t, s.http.Listener.Addr().String())
						conn.write(t, "POST /main/_push/v1/%s HTTP/1.1\r\nHost: x\r\n", c.route)
						if how == "length" {
							conn.write(t, "Content-Length: %d\r\n\r\n%s", len(c.body), c.body[:c.sent])
						} else if conn.write(t, "Transfer-Encoding: chunked\r\n\r\n"); c.sent > 0 {
							conn.write(t, "%x\r\n%s\r\n", c.sent, c.body[:c.sent])
						}
						switch end {
						case "half-closed":
							must(t, conn.CloseWrite())
							if r, ok := conn.reply(t); ok && r.status < 400 {
								t.Errorf("status %d: %s", r.status, r.body)
							}
						case "reset":
							must(t, conn.SetLinger(0))
							fallthrough
						case "closed":
							must(t, conn.Close())
						}
					})
					s := startAt(t, dir)
					s.wantAbsent(t, p)
					if c.route == "chunks" {
						if n := s.missingChunks(t, frames...); n != len(frames) {
							t.Errorf("%d of %d chunks are missing, want all", n, len(frames))
						}
						if files := packFiles(t, dir); len(files) != 0 {
							t.Errorf("it left %v", files)
						}
					}
					s.push(t, p)
					s.wantServed(t, p)
				})
			}
		}
	}
}

// scattered is a path in two packs, so that one of them can be spoiled.
func scattered(t *testing.T, s *running) (p path, files []string) {
	t.Helper()
	p = file(t, "scattered", noise(200_000, 1))
	s.scatter(t, p, 20_000)
	files = packFiles(t, s.dir)
	if len(files) != 2 {
		t.Fatalf("%d packs, want 2", len(files))
	}
	slices.Sort(files)
	slices.SortFunc(files, func(a, b string) int { return int(size(t, b) - size(t, a)) })
	return p, files
}

func size(t testing.TB, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	must(t, err)
	return info.Size()
}

// A NAR whose pack is gone or cut off is never served as if it were whole: the
// answer is an error, or it breaks off before its announced length.
func TestADamagedPackIsNotServedAsWhole(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(file string) error{
		"gone":                os.Remove,
		"empty":               func(f string) error { return os.Truncate(f, 0) },
		"cut off in a frame":  func(f string) error { return os.Truncate(f, 50_000) },
		"cut off at its head": func(f string) error { return os.Truncate(f, 8) },
	} {
		for which := range 2 {
			for _, hot := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, pack %d, seen before %v", name, which, hot), func(t *testing.T) {
					t.Parallel()
					s := start(t)
					p, files := scattered(t, s)
					n := s.narinfo(t, p)
					if hot {
						s.wantServed(t, p)
					}
					must(t, spoil(files[which]))
					for _, asked := range []http.Header{{}, {"Range": {"bytes=1000-"}}, {"Range": {"bytes=100000-199999"}}} {
						r := s.do(t, http.MethodGet, "/main/"+n.URL, asked, nil)
						switch {
						case r.status == 0: // broken off before the head
						case r.status >= 500:
							must(t, r.broken)
							r.want(t, http.StatusInternalServerError, push.CodeInternal)
							for _, h := range []string{"Cache-Control", "Etag", "Content-Range", "Accept-Ranges"} {
								if v := r.header.Get(h); v != "" {
									t.Errorf("an error with %s: %s", h, v)
								}
							}
						case r.status != 200 && r.status != 206:
							t.Errorf("status %d", r.status)
						case r.broken == nil:
							t.Errorf("%v: a whole answer of %d bytes", asked, len(r.body))
						}
					}
					// The other paths are not affected.
					q := file(t, "other", noise(100_000, 7))
					s.push(t, q)
					s.wantServed(t, q)
				})
			}
		}
	}
}

// A commit of chunks that are damaged on the disk is the server's fault.
func TestACommitOfDamagedChunks(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(file string) error{
		"gone":    os.Remove,
		"cut off": func(f string) error { return os.Truncate(f, 50_000) },
		"flipped": func(name string) error {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			b[60_000] ^= 1
			return os.WriteFile(name, b, 0o600)
		},
		"flipped in the archive's head": func(name string) error {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			b[bytes.Index(b, []byte("nix-archive-1"))] ^= 1
			return os.WriteFile(name, b, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			p := file(t, "hello", noise(400_000, 1))
			chunks := upload(t, s.client(t), p)
			must(t, spoil(packFiles(t, s.dir)[0]))
			s.post(t, "paths", push.AppendCommit(nil, p.info, chunks)).want(t, http.StatusInternalServerError, push.CodeInternal)
			s.wantAbsent(t, p)
		})
	}
}
