package reporter

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
)

// document writes all that a run did as one JSON document.
type document struct {
	out    io.Writer
	record *Record
}

// Observe implements event.Observer.
func (d *document) Observe(e event.Event) { d.record.Observe(e) }

// Finish implements Reporter.
func (d *document) Finish(report *flywheel.Report) error {
	d.record.mu.Lock()
	defer d.record.mu.Unlock()
	text, err := json.MarshalIndent(struct {
		Schema int              `json:"schema"` // 1
		Report *flywheel.Report `json:"report"`
		*Record
	}{1, report, d.record}, "", "  ")
	if err == nil {
		_, err = d.out.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the run as JSON: %w", err)
	}
	return nil
}

// jsonLines writes each event as a line of JSON as it happens: "event" is its
// name, "time" when it was told, and the rest are the event's fields. Durations
// are seconds. The last line is "finished", with the report.
type jsonLines struct {
	out io.Writer
	now func() time.Time

	mu  sync.Mutex
	err error // the first of out's
}

// Observe implements event.Observer.
func (j *jsonLines) Observe(e event.Event) {
	name, fields := fieldsOf(e)
	if name != "" {
		j.write(name, fields)
	}
}

// Finish implements Reporter.
func (j *jsonLines) Finish(report *flywheel.Report) error {
	j.write("finished", map[string]any{"schema": 1, "report": report})
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return fmt.Errorf("writing the run as JSON lines: %w", j.err)
	}
	return nil
}

func (j *jsonLines) write(name string, fields map[string]any) {
	fields["event"], fields["time"] = name, j.now().UTC().Format(time.RFC3339Nano)
	text, err := json.Marshal(fields)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil && j.err == nil {
		_, err = j.out.Write(append(text, '\n'))
	}
	if j.err == nil {
		j.err = err
	}
}

// fieldsOf returns an event's name and fields; no name for one that is new to it.
func fieldsOf(e event.Event) (string, map[string]any) {
	switch e := e.(type) {
	case event.StepBegan:
		return "step-began", map[string]any{"step": e.Step}
	case event.StepGoesOn:
		return "step-goes-on", map[string]any{"step": e.Step, "seconds": e.Took.Seconds(), "text": e.Text}
	case event.StepEnded:
		return "step-ended", map[string]any{"step": e.Step, "seconds": e.Took.Seconds(), "outcome": e.Outcome, "text": e.Text}
	case event.Note:
		return "note", map[string]any{"text": e.Text}
	case event.Output:
		return "output", map[string]any{"text": e.Text}
	case event.BuildsExpected:
		return "builds-expected", map[string]any{"change": e.Change}
	case event.BuildBegan:
		return "build-began", map[string]any{"derivation": e.Derivation}
	case event.BuildEnded:
		return "build-ended", map[string]any{"derivation": e.Derivation, "seconds": e.Took.Seconds(), "failed": e.Failed}
	case event.FetchBegan:
		return "fetch-began", map[string]any{"path": e.Path, "from": e.From}
	case event.FetchEnded:
		return "fetch-ended", map[string]any{"path": e.Path, "from": e.From, "seconds": e.Took.Seconds()}
	case event.PathPushing:
		return "path-pushing", map[string]any{"path": e.Path, "narSize": e.NarSize}
	case event.PathSent:
		return "path-sent", map[string]any{"path": e.Path, "bytes": e.Bytes, "narSize": e.NarSize}
	case event.PathPushed:
		fields := map[string]any{"path": e.Path, "narSize": e.NarSize, "seconds": e.Took.Seconds()}
		if e.Err != nil {
			fields["error"] = e.Err.Error()
		}
		return "path-pushed", fields
	case event.PathHeld:
		return "path-held", map[string]any{"path": e.Path}
	case event.PushQueued:
		return "push-queued", map[string]any{"paths": e.Paths}
	case event.InstallableEnded:
		return "installable-ended", map[string]any{"installable": e.Installable, "outcome": e.Outcome, "seconds": e.Took.Seconds(), "results": e.Results, "text": e.Text}
	case event.CacheFault:
		return "cache-fault", map[string]any{"text": e.Text}
	}
	return "", nil
}
