package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity is longer than any test.
const validity = 24 * time.Hour

// pair is a certificate and its key, in PEM.
type pair struct{ certificate, key []byte }

// keys are those of the cluster, from one authority that nobody else has.
type keys struct {
	dir       string
	authority []byte // certificate, in PEM
	users     map[string]pair
	kubelet   pair // server's
}

// identities are the users that authenticate with certificates, by the names of
// their files. Their rights come from the roles that every API server makes.
var identities = map[string]pkix.Name{
	"administrator":           {CommonName: "administrator", Organization: []string{"system:masters"}},
	"kube-controller-manager": {CommonName: "system:kube-controller-manager"},
	"kube-scheduler":          {CommonName: "system:kube-scheduler"},
	"kube-apiserver-kubelet":  {CommonName: "kube-apiserver-kubelet"},
}

// newKeys makes all keys, and writes to dir those that components read from files.
func newKeys(dir string) (*keys, error) {
	k := &keys{dir: dir, users: map[string]pair{}}
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, authority.Public(), authority)
	if err != nil {
		return nil, fmt.Errorf("making the authority's certificate: %w", err)
	}
	k.authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})

	serial := int64(1)
	issue := func(name pkix.Name, usage x509.ExtKeyUsage) (pair, error) {
		serial++
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return pair{}, fmt.Errorf("making the key of %s: %w", name.CommonName, err)
		}
		certificate := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: name, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		}
		if usage == x509.ExtKeyUsageServerAuth {
			certificate.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		der, err := x509.CreateCertificate(rand.Reader, certificate, root, key.Public(), authority)
		if err != nil {
			return pair{}, fmt.Errorf("making the certificate of %s: %w", name.CommonName, err)
		}
		text, err := pemKey(key)
		return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), text}, err
	}
	for user, name := range identities {
		if k.users[user], err = issue(name, x509.ExtKeyUsageClientAuth); err != nil {
			return nil, err
		}
	}
	server, err := issue(pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	if k.kubelet, err = issue(pkix.Name{CommonName: "kubelet"}, x509.ExtKeyUsageServerAuth); err != nil {
		return nil, err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the service accounts' key: %w", err)
	}
	accountsKey, err := pemKey(accounts)
	if err != nil {
		return nil, err
	}
	for name, text := range map[string][]byte{
		"ca.crt": k.authority, "service-accounts.key": accountsKey,
		"kube-apiserver.crt": server.certificate, "kube-apiserver.key": server.key,
		"kubelet-client.crt": k.users["kube-apiserver-kubelet"].certificate, "kubelet-client.key": k.users["kube-apiserver-kubelet"].key,
	} {
		if err := os.WriteFile(k.file(name), text, 0o600); err != nil {
			return nil, fmt.Errorf("writing the keys: %w", err)
		}
	}
	return k, nil
}

func (k *keys) file(name string) string { return filepath.Join(k.dir, name) }

func pemKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
