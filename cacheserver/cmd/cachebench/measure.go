package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// sample is what one run of one side took. cpu is of all processes that worked
// for it, where that is known.
type sample struct {
	wall, cpu time.Duration
}

func wallTime(s sample) time.Duration { return s.wall }
func cpuTime(s sample) time.Duration  { return s.cpu }

// side is one of those that are compared.
type side struct {
	name string
	run  func(ctx context.Context) (sample, error)
}

// comparison has a sample for each side and round.
type comparison struct {
	samples [][]sample
}

// alternate runs the sides in turn, round by round, so that what else goes on
// on the machine hits all of them.
func alternate(ctx context.Context, progress io.Writer, rounds int, sides ...side) (*comparison, error) {
	c := &comparison{samples: make([][]sample, len(sides))}
	for round := range rounds {
		for i, s := range sides {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			fmt.Fprintf(progress, "round %d of %d: %s\n", round+1, rounds, s.name)
			took, err := s.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			c.samples[i] = append(c.samples[i], took)
		}
	}
	return c, nil
}

// ratio compares side a with side b, each round by itself.
func (c *comparison) ratio(a, b int, of func(sample) time.Duration) spread {
	ratios := make([]float64, len(c.samples[a]))
	for i := range ratios {
		ratios[i] = of(c.samples[a][i]).Seconds() / of(c.samples[b][i]).Seconds()
	}
	return spreadOf(ratios)
}

// timed measures what work takes of this process and of those that it waits for.
func timed(work func() error) (sample, error) {
	runtime.GC()
	cpu, began := processTime(), time.Now()
	err := work()
	return sample{time.Since(began), processTime() - cpu}, err
}

func processTime() time.Duration {
	var total time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return total
}

// spread is the median of some ratios, and how far they reach.
type spread struct {
	median, least, most float64
	rounds              int
}

func spreadOf(values []float64) spread {
	s := slices.Sorted(slices.Values(values))
	return spread{median: medianOf(values), least: s[0], most: s[len(s)-1], rounds: len(s)}
}

func (s spread) String() string {
	if s.least == 1 && s.most == 1 {
		return "1" // of a side with itself
	}
	middle := ratioText(s.median)
	if s.rounds < 2 || s.least == s.most || middle == unknown {
		return middle
	}
	return fmt.Sprintf("%s (%s–%s)", middle, ratioText(s.least), ratioText(s.most))
}

func medianOf[T ~int64 | ~float64](values []T) T {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// percentile is the smallest value that so many of a hundred do not exceed.
func percentile(values []time.Duration, percent int) time.Duration {
	s := slices.Sorted(slices.Values(values))
	return s[max(0, (len(s)*percent+99)/100-1)]
}
