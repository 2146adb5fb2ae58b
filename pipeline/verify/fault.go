package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
)

// fault is why a check does not hold.
type fault struct {
	reason string // on one line
	look   string // what to look at
	final  bool   // it does not go away with time
}

func (f *fault) Error() string { return f.reason }

const (
	lookAtPods  = "the pods and their events: kubectl -n NAMESPACE get pods; kubectl -n NAMESPACE describe pods; kubectl -n NAMESPACE logs deploy/NAME"
	lookAtURL   = "the URL: is the host the environment's (flywheel environment), and is the name behind it a cache of that server?"
	lookAtRoute = "what answers there instead of the cache, such as a default backend or a login page: kubectl -n NAMESPACE get ingresses,httproutes; and " + lookAtURL
)

// transportFault tells why a request had no answer; ctx bounded it.
func transportFault(ctx context.Context, err error) *fault {
	var (
		request     *url.Error
		name        *net.DNSError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
	)
	if errors.As(err, &request) {
		err = request.Err // without the URL, which whoever reads this knows
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &fault{
			reason: "no answer in time",
			look:   "a server that hangs, or a NetworkPolicy or firewall in between: kubectl -n NAMESPACE get networkpolicies; " + lookAtPods,
		}
	case errors.As(err, &name):
		return &fault{
			reason: fmt.Sprintf("the name %s cannot be resolved", name.Name),
			look:   "the DNS record of the host, and whether this machine is in the network that knows it",
		}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &fault{
			reason: "connection refused",
			look:   "whether anything listens there: kubectl -n NAMESPACE get services,ingresses,httproutes; " + lookAtPods,
		}
	case errors.As(err, &certificate):
		return &fault{
			reason: fmt.Sprintf("the certificate is not trusted: %v", certificate.Err),
			look:   "the certificate of the host: kubectl -n NAMESPACE get certificates; and this machine's authorities (SSL_CERT_FILE)",
		}
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return &fault{
			reason: "the server does not speak TLS",
			look:   "the scheme and the port of the URL: http:// instead of https://?",
		}
	}
	return &fault{reason: oneLine(err.Error()), look: lookAtPods}
}

// statusFault tells of an answer that is no success; body is its beginning.
func statusFault(status int, body string) *fault {
	f := &fault{reason: strings.TrimSpace(fmt.Sprintf("HTTP %d %s", status, http.StatusText(status)))}
	// Pages in HTML say nothing on one line.
	if said := oneLine(body); said != "" && !strings.HasPrefix(said, "<") {
		f.reason += ": " + said
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		f.look = "what stands before the cache and wants a login; reading must need none"
	case status == http.StatusNotFound:
		f.look = "the route, if the server just started: kubectl -n NAMESPACE get ingresses,httproutes; and " + lookAtURL
	case status >= 500:
		f.look = lookAtPods
	default:
		f.look = lookAtURL
	}
	return f
}

// shown is how much of a text that a server wrote is shown, in characters.
const shown = 120

// oneLine returns the first line of a text, without control characters that
// could do something to a terminal, and shortened.
func oneLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, "\uFFFD"))
	if runes := []rune(line); len(runes) > shown {
		line = string(runes[:shown]) + "…"
	}
	return strings.TrimSpace(line)
}
