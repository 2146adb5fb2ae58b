package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

const (
	endTime  = 20 * time.Second // a component has after SIGTERM
	pollTime = 100 * time.Millisecond
	tailSize = 4 << 10 // of a component's log that a failure tells, in bytes
)

// components are the programs that this one also is. Each is a process of its own,
// for they share flags, feature gates and metrics that a process has once.
var components = map[string]func(arguments []string) int{
	"kube-apiserver":          component(apiserver.NewAPIServerCommand),
	"kube-controller-manager": component(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          component(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
}

func component(command func() *cobra.Command) func([]string) int {
	return func(arguments []string) int {
		cmd := command()
		cmd.SetArgs(arguments)
		return cli.Run(cmd)
	}
}

type etcd struct {
	server  *embed.Etcd
	address string
}

// startEtcd starts a store that forgets: nothing is flushed to the disk.
func startEtcd(ctx context.Context, dir string) (*etcd, error) {
	config := embed.NewConfig()
	config.Dir = dir
	loopback := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config.ListenClientUrls, config.AdvertiseClientUrls = loopback, loopback
	config.ListenPeerUrls, config.AdvertisePeerUrls = loopback, loopback
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	config.EnableGRPCGateway = false // it would look for itself at port 0
	config.LogLevel, config.LogOutputs = "error", []string{dir + ".log"}
	server, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return &etcd{server, "http://" + server.Clients[0].Addr().String()}, nil
	case err = <-server.Err():
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	server.Close()
	return nil, fmt.Errorf("starting etcd: %w", err)
}

func (e *etcd) close() { e.server.Close() }

// controlPlane is what its components have to know of each other.
type controlPlane struct {
	dir  string
	keys *keys
	etcd string // address
	port int    // the API server's
}

func (p *controlPlane) address() string { return "https://127.0.0.1:" + strconv.Itoa(p.port) }

func (p *controlPlane) apiServer() []string {
	return []string{
		"--etcd-servers=" + p.etcd,
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(p.port), "--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none", // there is no pod that would look for it
		"--tls-cert-file=" + p.keys.file("kube-apiserver.crt"), "--tls-private-key-file=" + p.keys.file("kube-apiserver.key"),
		"--client-ca-file=" + p.keys.file("ca.crt"),
		"--kubelet-certificate-authority=" + p.keys.file("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + p.keys.file("kubelet-client.crt"), "--kubelet-client-key=" + p.keys.file("kubelet-client.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.keys.file("service-accounts.key"), "--service-account-signing-key-file=" + p.keys.file("service-accounts.key"),
		"--service-cluster-ip-range=10.0.0.0/16",
		"--authorization-mode=RBAC",
		"--allow-privileged=true", // as clusters do; Pod Security is what forbids it
		"--profiling=false", "--v=0",
	}
}

func (p *controlPlane) controllerManager(kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig, "--use-service-account-credentials=true",
		"--service-account-private-key-file=" + p.keys.file("service-accounts.key"), "--root-ca-file=" + p.keys.file("ca.crt"),
		"--leader-elect=false", "--secure-port=0", "--profiling=false", "--v=0",
	}
}

func (p *controlPlane) scheduler(kubeconfig string) []string {
	return []string{"--kubeconfig=" + kubeconfig, "--leader-elect=false", "--secure-port=0", "--profiling=false", "--v=0"}
}

// run runs a component until ctx ends. An end before that is an error, which the
// end of its log is part of.
func (p *controlPlane) run(ctx context.Context, name string, arguments []string) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	log, err := os.Create(filepath.Join(p.dir, name+".log"))
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, program, append([]string{name}, arguments...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endTime
	// The kernel sends the signal when the thread that started the process ends,
	// which therefore has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // a terminal's ^C is for us, who end them in order
		Pdeathsig: syscall.SIGKILL,
	}
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("without being told to")
	}
	return fmt.Errorf("%s ended: %w\n%s", name, err, tail(log.Name()))
}

func tail(file string) []byte {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(text[max(0, len(text)-tailSize):])
}

// kubeconfig writes a user's.
func (p *controlPlane) kubeconfig(user string) (string, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["cluster"] = &clientcmdapi.Cluster{Server: p.address(), CertificateAuthorityData: p.keys.authority}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: p.keys.users[user].certificate, ClientKeyData: p.keys.users[user].key}
	config.Contexts["cluster"] = &clientcmdapi.Context{Cluster: "cluster", AuthInfo: user}
	config.CurrentContext = "cluster"
	file := p.keys.file(user + ".kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		return "", fmt.Errorf("writing the kubeconfig of %s: %w", user, err)
	}
	return file, nil
}

// freePort is one that was free a moment ago: kube-apiserver takes no listener.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// awaitServer waits until the API server is ready, with its own roles made.
func awaitServer(ctx context.Context, client *kubernetes.Clientset) error {
	return await(ctx, "kube-apiserver is not ready", func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// awaitNodes waits until pods can be made and scheduled: the controllers have made
// the account that pods have, and no node is tainted as not ready.
func awaitNodes(ctx context.Context, client *kubernetes.Clientset, nodes int) error {
	return await(ctx, "the nodes are not ready", func(ctx context.Context) error {
		if _, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", meta.GetOptions{}); err != nil {
			return err
		}
		list, err := client.CoreV1().Nodes().List(ctx, meta.ListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for _, node := range list.Items {
			if len(node.Spec.Taints) == 0 {
				ready++
			}
		}
		if ready < nodes {
			return fmt.Errorf("%d of %d", ready, nodes)
		}
		return nil
	})
}

// await asks until there is no error; the last one is why it gave up.
func await(ctx context.Context, failure string, ask func(context.Context) error) error {
	ticker := time.NewTicker(pollTime)
	defer ticker.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", failure, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
