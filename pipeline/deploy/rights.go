package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	authorization "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// checkRights asks the cluster what this identity may do, as kubectl auth can-i
// does. Without rights to look at, it asks who this is.
func checkRights(ctx context.Context, cluster kubernetes.Interface, name string, rights []right) error {
	if len(rights) == 0 {
		_, err := cluster.Discovery().ServerVersion()
		return clusterFault(name, err)
	}
	var missing []string
	for _, r := range rights {
		answer, err := cluster.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorization.SelfSubjectAccessReview{
			Spec: authorization.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorization.ResourceAttributes{
				Verb: r.verb, Group: r.group, Resource: r.resource, Namespace: r.namespace,
			}},
		}, meta.CreateOptions{})
		if err != nil {
			return clusterFault(name, err)
		}
		if !answer.Status.Allowed {
			missing = append(missing, r.String())
		}
	}
	if len(missing) > 0 {
		return inputf("context %s may not %s: is the namespace made and bound to this environment's group (stack cluster), and does the job name the environment? Nothing was done",
			name, strings.Join(missing, ", nor "))
	}
	return nil
}

// clusterFault is why a cluster did not answer a question.
func clusterFault(name string, err error) error {
	var request *url.Error
	switch {
	case err == nil:
		return nil
	case apierrors.IsUnauthorized(err):
		return inputf("context %s: the cluster does not know who this is: the token has expired (in a job it ends with the job: run it anew), or the agent's ci_access does not name this project", name)
	case apierrors.IsForbidden(err):
		return inputf("context %s: forbidden: %w", name, err)
	case errors.As(err, &request):
		return fmt.Errorf("context %s: the cluster cannot be reached: %w", name, request.Err)
	}
	return fmt.Errorf("context %s: %w", name, err)
}
