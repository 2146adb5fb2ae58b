package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	// heartbeat is between two words of a node; without any for 50 seconds, the
	// controllers hold it for dead.
	heartbeat = 10 * time.Second
	// provisioner is the stand-in's own, and of the default storage class.
	provisioner = "cluster.invalid/nothing"
)

// kubelet stands in for the kubelets of all nodes and for a volume provisioner. It
// runs nothing and mounts nothing, and does not look for what a pod mounts: it
// writes the status that a pod would have, and deletes pods that are to go. What
// becomes of a container is told by its image (see fate). Volumes are objects
// without storage.
type kubelet struct {
	client   *kubernetes.Clientset
	keys     *keys
	nodes    []string
	listener net.Listener // of the logs' server, which the API server asks
	ips      atomic.Uint32
}

func newKubelet(client *kubernetes.Clientset, keys *keys, nodes int) (*kubelet, error) {
	k := &kubelet{client: client, keys: keys}
	for n := range nodes {
		k.nodes = append(k.nodes, "node-"+strconv.Itoa(n+1))
	}
	certificate, err := tls.X509KeyPair(keys.kubelet.certificate, keys.kubelet.key)
	if err != nil {
		return nil, fmt.Errorf("the kubelet's certificate: %w", err)
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(keys.authority)
	k.listener, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: authority,
		MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		return nil, fmt.Errorf("listening for questions about logs: %w", err)
	}
	return k, nil
}

func (k *kubelet) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	logs := &http.Server{Handler: k.logs(), ReadHeaderTimeout: 10 * time.Second}
	group.Go(func() error {
		if err := logs.Serve(k.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving logs: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return logs.Close()
	})
	group.Go(func() error { return ended(ctx, k.storage(ctx)) })
	group.Go(func() error { return ended(ctx, k.beat(ctx)) })
	group.Go(func() error { return ended(ctx, k.work(ctx)) })
	return group.Wait()
}

// ended drops the errors of work that was told to end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// beat registers the nodes and says again and again that they are there.
func (k *kubelet) beat(ctx context.Context) error {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		for n, name := range k.nodes {
			if err := k.beatNode(ctx, n, name); err != nil {
				return fmt.Errorf("the node %s: %w", name, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (k *kubelet) beatNode(ctx context.Context, n int, name string) error {
	node, err := k.client.CoreV1().Nodes().Get(ctx, name, meta.GetOptions{})
	if apierrors.IsNotFound(err) {
		node, err = k.client.CoreV1().Nodes().Create(ctx, &core.Node{ObjectMeta: meta.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				core.LabelHostname: name, core.LabelArchStable: "amd64", core.LabelOSStable: "linux",
				core.LabelTopologyZone: "zone-" + strconv.Itoa(n%2+1),
			},
		}}, meta.CreateOptions{})
	}
	if err != nil {
		return err
	}
	now := meta.Now()
	node.Status.Conditions = nil
	for kind, status := range map[core.NodeConditionType]core.ConditionStatus{
		core.NodeReady: core.ConditionTrue, core.NodeMemoryPressure: core.ConditionFalse,
		core.NodeDiskPressure: core.ConditionFalse, core.NodePIDPressure: core.ConditionFalse,
	} {
		node.Status.Conditions = append(node.Status.Conditions, core.NodeCondition{
			Type: kind, Status: status, LastHeartbeatTime: now, LastTransitionTime: node.CreationTimestamp, Reason: "StandIn",
		})
	}
	node.Status.Capacity = core.ResourceList{
		core.ResourceCPU: resource.MustParse("64"), core.ResourceMemory: resource.MustParse("256Gi"),
		core.ResourcePods: resource.MustParse("250"), core.ResourceEphemeralStorage: resource.MustParse("1Ti"),
	}
	node.Status.Allocatable = node.Status.Capacity
	node.Status.Addresses = []core.NodeAddress{{Type: core.NodeInternalIP, Address: "127.0.0.1"}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(k.listener.Addr().(*net.TCPAddr).Port)
	_, err = k.client.CoreV1().Nodes().UpdateStatus(ctx, node, meta.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil // the next beat comes soon
	}
	return err
}

// storage makes the default storage class.
func (k *kubelet) storage(ctx context.Context) error {
	reclaim, binding := core.PersistentVolumeReclaimDelete, storage.VolumeBindingImmediate
	_, err := k.client.StorageV1().StorageClasses().Create(ctx, &storage.StorageClass{
		ObjectMeta: meta.ObjectMeta{
			Name:        "standard",
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner: provisioner, ReclaimPolicy: &reclaim, VolumeBindingMode: &binding,
	}, meta.CreateOptions{})
	if err != nil {
		return fmt.Errorf("making the storage class: %w", err)
	}
	return nil
}

// item is something to look at: a pod, a claim or a volume.
type item struct{ kind, namespace, name string }

// work follows what is made and does what a node and a provisioner would do.
func (k *kubelet) work(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(k.client, 0)
	pods := factory.Core().V1().Pods()
	claims := factory.Core().V1().PersistentVolumeClaims()
	volumes := factory.Core().V1().PersistentVolumes()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[item]())
	for kind, informer := range map[string]cache.SharedIndexInformer{"pod": pods.Informer(), "claim": claims.Informer(), "volume": volumes.Informer()} {
		add := func(object any) {
			if m, ok := object.(meta.Object); ok {
				queue.Add(item{kind, m.GetNamespace(), m.GetName()})
			}
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: add, UpdateFunc: func(_, object any) { add(object) },
		}); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	context.AfterFunc(ctx, queue.ShutDown)
	do := func(i item) error {
		switch i.kind {
		case "pod":
			pod, err := pods.Lister().Pods(i.namespace).Get(i.name)
			if err != nil {
				return err
			}
			return k.pod(ctx, pod)
		case "claim":
			claim, err := claims.Lister().PersistentVolumeClaims(i.namespace).Get(i.name)
			if err != nil {
				return err
			}
			return k.claim(ctx, claim)
		default:
			volume, err := volumes.Lister().Get(i.name)
			if err != nil {
				return err
			}
			return k.volume(ctx, volume)
		}
	}
	for {
		next, shutdown := queue.Get()
		if shutdown {
			return nil
		}
		err := do(next)
		switch {
		case err == nil, apierrors.IsNotFound(err):
			queue.Forget(next)
		case !apierrors.IsConflict(err) && queue.NumRequeues(next) > 10:
			return fmt.Errorf("the %s %s/%s: %w", next.kind, next.namespace, next.name, err)
		default: // another has written it since
			queue.AddRateLimited(next)
		}
		queue.Done(next)
	}
}

// claim makes a volume for a claim of the default class.
func (k *kubelet) claim(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	class := claim.Spec.StorageClassName
	if claim.Status.Phase != core.ClaimPending || claim.Spec.VolumeName != "" || class == nil || *class != "standard" || claim.DeletionTimestamp != nil {
		return nil
	}
	_, err := k.client.CoreV1().PersistentVolumes().Create(ctx, &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: "pvc-" + string(claim.UID), Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner}},
		Spec: core.PersistentVolumeSpec{
			Capacity: claim.Spec.Resources.Requests, AccessModes: claim.Spec.AccessModes, VolumeMode: claim.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: core.PersistentVolumeReclaimDelete, StorageClassName: *class,
			ClaimRef: &core.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: core.PersistentVolumeSource{HostPath: &core.HostPathVolumeSource{Path: "/nowhere"}},
		},
	}, meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// volume deletes one whose claim is gone.
func (k *kubelet) volume(ctx context.Context, volume *core.PersistentVolume) error {
	if volume.Status.Phase != core.VolumeReleased || volume.DeletionTimestamp != nil {
		return nil
	}
	return k.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
}
