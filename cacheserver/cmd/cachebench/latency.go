package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

// hotPaths are few enough to stay in any memory.
const hotPaths = 100

// question is a kind of request, asked over a number of connections.
type question struct {
	name        string
	connections int
	status      int
	// path returns the number of the i-th path that is asked for.
	path func(s *subject, i int) int
}

func questions() (all []question) {
	for _, connections := range []int{1, manyConnections} {
		all = append(all,
			question{"narinfo, from the index", connections, http.StatusOK, func(s *subject, _ int) int { return s.unique() }},
			question{"narinfo, from memory", connections, http.StatusOK, func(_ *subject, i int) int { return i % hotPaths }},
			question{"narinfo that is not there", connections, http.StatusNotFound, func(s *subject, i int) int { return s.rows.paths + i }},
		)
	}
	return all
}

// latency is what one kind of request took on one subject, round by round.
type latency struct{ p50, p99 []time.Duration }

func (l *latency) add(took []time.Duration) {
	l.p50 = append(l.p50, percentile(took, 50))
	l.p99 = append(l.p99, percentile(took, 99))
}

// latencies asks all subjects the same, in turn.
func latencies(ctx context.Context, o scaleOptions, subjects []*subject, mem *memory, out, progress io.Writer) error {
	asked := questions()
	paths := len(asked) // behind the others
	took := make([][]latency, len(asked)+1)
	for i := range took {
		took[i] = make([]latency, len(subjects))
	}
	for round := range o.rounds {
		for i, s := range subjects {
			fmt.Fprintf(progress, "round %d of %d: asking %s\n", round+1, o.rounds, s)
			err := s.serve(ctx, func(url string) error {
				for q, question := range asked {
					times, err := question.ask(ctx, s, url, min(o.requests, s.rows.paths/4))
					if err != nil {
						return err
					}
					took[q][i].add(times)
				}
				once, err := askForPaths(ctx, s, url, o.asked, min(o.paths/smallPart, o.asked/2))
				took[paths][i].add([]time.Duration{once})
				return err
			})
			if err != nil {
				return fmt.Errorf("asking %s: %w", s, err)
			}
			if round == o.rounds-1 {
				mem.stage("asking " + s.String())
			}
		}
	}
	t := table{columns: []string{"request", "connections", "index", "p50", "p50 ÷ small", "p99", "p99 ÷ small"}}
	row := func(name, connections string, of []latency) {
		for large := 1; large < len(subjects); large += 2 { // each behind the small one of its kind
			s, l := of[large-1], of[large]
			t.add(name, connections, subjects[large].kind, milliseconds(l.p50), compare(l.p50, s.p50), milliseconds(l.p99), compare(l.p99, s.p99))
		}
	}
	for q, question := range asked {
		row(question.name, count(int64(question.connections)), took[q])
	}
	row(fmt.Sprintf("%s paths, which are missing?", count(int64(o.asked))), "1", took[paths])
	t.print(out, "Requests", fmt.Sprintf(`%s paths against %s. The times, in milliseconds, are of this machine; the ratios
compare large with small.`, count(int64(o.paths)), count(int64(o.paths/smallPart))))
	return nil
}

func milliseconds(rounds []time.Duration) string {
	return fmt.Sprintf("%.2f", float64(medianOf(rounds))/float64(time.Millisecond))
}

func compare(a, b []time.Duration) string {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i].Seconds() / b[i].Seconds()
	}
	return spreadOf(ratios).String()
}

// ask makes n requests and returns what each took.
func (q question) ask(ctx context.Context, s *subject, url string, n int) ([]time.Duration, error) {
	// A connection and the upper pages of the trees are there in any server that
	// has run for a moment.
	const warmUp = 200
	urls := make([]string, warmUp+n)
	for i := range urls {
		urls[i] = s.narinfoURL(url, q.path(s, i))
	}
	p := newPuller(q.connections)
	defer p.close()
	took := make([]time.Duration, len(urls))
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range q.connections {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(urls) {
					return nil
				}
				began := time.Now()
				if err := p.look(ctx, urls[i], q.status); err != nil {
					return err
				}
				took[i] = time.Since(began)
			}
		})
	}
	return took[warmUp:], g.Wait()
}

func (s *subject) narinfoURL(url string, path int) string {
	return url + "/" + s.rows.hash(path) + ".narinfo"
}

// look gets a file, or learns that it is not there.
func (p *puller) look(ctx context.Context, url string, status int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != status {
		return fmt.Errorf("%s: HTTP %d, not %d", url, resp.StatusCode, status)
	}
	return nil
}

// askForPaths asks which of so many paths are missing. held of them are not.
func askForPaths(ctx context.Context, s *subject, url string, asked, held int) (time.Duration, error) {
	hashes := make([]string, asked)
	for i := range hashes {
		path := s.rows.paths + i
		if i < held {
			path = s.unique()
		}
		hashes[i] = s.rows.hash(path)
	}
	c, err := push.NewClient(url)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	missing, err := c.MissingPaths(ctx, hashes)
	if err == nil && len(missing) != asked-held {
		err = fmt.Errorf("%d of %d paths are said to be missing, not %d", len(missing), asked, asked-held)
	}
	return time.Since(began), err
}
