package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Summary is what a plan would do. In JSON it is also GitLab's
// artifacts:reports:terraform, which reads create, update and delete.
type Summary struct {
	Schema int `json:"schema"` // 1
	Create int `json:"create"`
	Update int `json:"update"`
	Delete int `json:"delete"`
	// Resources are those that change, in the plan's order.
	Resources []Change `json:"resources"`
	// OutputsChange says that an apply has something to do though no resource changes.
	OutputsChange bool `json:"outputsChange"`
	// Namespace is the stack's variable of that name.
	Namespace string `json:"namespace"`
}

// Change is one resource of a plan. One that is replaced counts as deleted and as
// created.
type Change struct {
	Address string   `json:"address"`
	Actions []string `json:"actions"` // create, update, delete
	Object  string   `json:"object,omitempty"`
	Data    bool     `json:"data,omitempty"` // it holds data
}

// Changes is the sum of them.
func (s Summary) Changes() int { return s.Create + s.Update + s.Delete }

func (s Summary) String() string {
	if s.Changes() == 0 {
		return "no changes"
	}
	return fmt.Sprintf("%d to add, %d to change, %d to destroy", s.Create, s.Update, s.Delete)
}

// Guarded are the resources with data that the plan destroys.
func (s Summary) Guarded() []string {
	var names []string
	for _, c := range s.Resources {
		if c.Data && slices.Contains(c.Actions, "delete") {
			name := c.Address
			if c.Object != "" {
				name = c.Object
			}
			names = append(names, name)
		}
	}
	return names
}

// Table writes a line for each resource.
func (s Summary) Table(w io.Writer) error {
	signs := map[string]string{"create": "+", "update": "~", "delete": "-", "delete,create": "-/+", "create,delete": "+/-"}
	for _, c := range s.Resources {
		actions := strings.Join(c.Actions, ",")
		sign, ok := signs[actions]
		if !ok {
			sign = actions
		}
		line := fmt.Sprintf("%-4s%s", sign, c.Address)
		if c.Object != "" {
			line += "  (" + c.Object + ")"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("writing the plan: %w", err)
		}
	}
	if _, err := fmt.Fprintln(w, s); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	return nil
}

// dataKinds are kinds of objects with which data goes, or may go.
var dataKinds = map[string]bool{"Cluster": true, "Tenant": true, "PersistentVolumeClaim": true, "Namespace": true}

// dataTypes matches resources of providers for storage itself.
var dataTypes = regexp.MustCompile(`bucket|database|db_instance|persistent_volume`)

// plannedValues are those by which an object of Kubernetes is known.
type plannedValues struct {
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// show reads a saved plan.
func (t *tofu) show(ctx context.Context, file string) (Summary, error) {
	text, err := t.output(ctx, "show", "-json", file)
	if err != nil {
		return Summary{}, inputf("reading the plan %s: %w", file, err)
	}
	return parsePlan(text)
}

// parsePlan reads what tofu show -json writes of a plan.
// https://opentofu.org/docs/internals/json-format/
func parsePlan(text []byte) (Summary, error) {
	var plan struct {
		Variables map[string]struct {
			Value any `json:"value"`
		} `json:"variables"`
		ResourceChanges []struct {
			Address string `json:"address"`
			Mode    string `json:"mode"`
			Type    string `json:"type"`
			Change  struct {
				Actions []string        `json:"actions"`
				Before  json.RawMessage `json:"before"`
				After   json.RawMessage `json:"after"`
			} `json:"change"`
		} `json:"resource_changes"`
		OutputChanges map[string]struct {
			Actions []string `json:"actions"`
		} `json:"output_changes"`
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		return Summary{}, fmt.Errorf("reading the plan: %w", err)
	}
	s := Summary{Schema: 1, Resources: []Change{}}
	s.Namespace, _ = plan.Variables["namespace"].Value.(string) // a stack need not have it
	for _, r := range plan.ResourceChanges {
		c := Change{Address: r.Address, Actions: r.Change.Actions}
		if r.Mode == "data" {
			continue // it is read, not changed
		}
		counted := false
		for action, n := range map[string]*int{"create": &s.Create, "update": &s.Update, "delete": &s.Delete} {
			if slices.Contains(c.Actions, action) {
				*n++
				counted = true
			}
		}
		if !counted {
			continue
		}
		var object plannedValues
		for _, values := range []json.RawMessage{r.Change.After, r.Change.Before} {
			var got plannedValues
			// Values of other resources need not fit.
			if json.Unmarshal(values, &got) == nil && got.Kind != "" {
				object = got
			}
		}
		if object.Kind != "" && r.Type == "kubectl_manifest" {
			c.Object = object.Kind + " " + object.Name
			c.Data = dataKinds[object.Kind]
		}
		c.Data = c.Data || dataTypes.MatchString(r.Type)
		s.Resources = append(s.Resources, c)
	}
	for _, o := range plan.OutputChanges {
		if !slices.Equal(o.Actions, []string{"no-op"}) {
			s.OutputsChange = true
		}
	}
	return s, nil
}
