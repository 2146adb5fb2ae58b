// Command cluster runs a Kubernetes control plane on this machine, for tests that
// need a real one: etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler, as their Go modules have them. It needs neither root nor
// containers.
//
//	cluster [-crds DIR]… [-nodes N] [-until-eof]
//
// What it does not have is machines. Its nodes are objects, and the pods that the
// scheduler puts on them run nowhere: a stand-in for their kubelet says of each
// that it runs and is ready (kubelet.go). Whatever depends on what a container
// does cannot be tested here, nor can the network between pods.
//
// When all of it is ready, one line of JSON on standard output says where the
// administrator's kubeconfig is and which version runs. It ends at SIGTERM or
// SIGINT, or with -until-eof when its standard input ends, and takes everything
// with it: its data is in a temporary directory, and it listens on free ports of
// the loopback interface only.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// readyTime bounds how long the control plane may take to start, on a machine
// that does other things too.
const readyTime = 5 * time.Minute

type options struct {
	crds     []string
	nodes    int
	untilEOF bool
}

func main() {
	if len(os.Args) > 1 {
		if component, ok := components[os.Args[1]]; ok {
			os.Exit(component(os.Args[2:]))
		}
	}
	var o options
	flag.Func("crds", "`directory` with CustomResourceDefinitions to apply (repeatable)", func(dir string) error {
		o.crds = append(o.crds, dir)
		return nil
	})
	flag.IntVar(&o.nodes, "nodes", 3, "how many nodes there are")
	flag.BoolVar(&o.untilEOF, "until-eof", false, "end when standard input ends, as it does when who started this dies")
	flag.Usage = func() {
		fmt.Fprint(os.Stderr, "usage: cluster [-crds DIR]… [-nodes N] [-until-eof]\n\nRuns a Kubernetes control plane without machines until it is told to end.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 || o.nodes < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// errStopped says that it was asked to end, which is no fault.
var errStopped = errors.New("stopped")

func run(o options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "cluster-")
	if err != nil {
		return fmt.Errorf("making a directory for the data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	keys, err := newKeys(dir)
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		<-ctx.Done()
		return errStopped
	})
	if o.untilEOF {
		// Nobody waits for it: it reads until the process ends.
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	err = start(ctx, group, dir, keys, o)
	if err != nil {
		stop()
	}
	if ended := group.Wait(); !errors.Is(ended, errStopped) {
		// It is why the start failed, where it did.
		return ended
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// start starts one part after the other and says when all are ready. What it
// starts ends with ctx and is waited for by group.
func start(ctx context.Context, group *errgroup.Group, dir string, keys *keys, o options) error {
	began := time.Now()
	starting, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	etcd, err := startEtcd(starting, filepath.Join(dir, "etcd"))
	if err != nil {
		return err
	}
	plane := &controlPlane{dir: dir, keys: keys, etcd: etcd.address}
	server := make(chan struct{})
	group.Go(func() error {
		// The others write to it until they end.
		<-ctx.Done()
		<-server
		etcd.close()
		return nil
	})
	if plane.port, err = freePort(); err != nil {
		close(server)
		return err
	}
	group.Go(func() error {
		defer close(server)
		return plane.run(ctx, "kube-apiserver", plane.apiServer())
	})
	config := plane.config("administrator")
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if err := awaitServer(starting, client); err != nil {
		return err
	}
	for name, arguments := range map[string]func(kubeconfig string) []string{
		"kube-controller-manager": plane.controllerManager,
		"kube-scheduler":          plane.scheduler,
	} {
		kubeconfig, err := plane.kubeconfig(name)
		if err != nil {
			return err
		}
		group.Go(func() error { return plane.run(ctx, name, arguments(kubeconfig)) })
	}
	if err := applyDefinitions(starting, config, o.crds); err != nil {
		return err
	}
	kubelet, err := newKubelet(client, keys, o.nodes)
	if err != nil {
		return err
	}
	group.Go(func() error { return kubelet.run(ctx) })
	if err := awaitNodes(starting, client, o.nodes); err != nil {
		return err
	}
	return announce(plane, client, time.Since(began))
}

// announcement is the line that says that all is ready.
type announcement struct {
	Kubeconfig string  `json:"kubeconfig"` // the administrator's
	Version    string  `json:"version"`    // the API server's
	Seconds    float64 `json:"seconds"`    // that it took to start
}

func announce(plane *controlPlane, client *kubernetes.Clientset, took time.Duration) error {
	kubeconfig, err := plane.kubeconfig("administrator")
	if err != nil {
		return err
	}
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("asking for the version: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(announcement{kubeconfig, version.GitVersion, took.Seconds()})
}

// config is a client's configuration for one of the users.
func (p *controlPlane) config(user string) *rest.Config {
	u := p.keys.users[user]
	return &rest.Config{
		Host:            p.address(),
		QPS:             -1, // there is nobody to be fair to
		TLSClientConfig: rest.TLSClientConfig{CAData: p.keys.authority, CertData: u.certificate, KeyData: u.key},
	}
}
