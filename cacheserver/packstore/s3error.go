package packstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func isNotFound(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && answer.Code == minio.NoSuchKey
}

func isPrecondition(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && answer.StatusCode == http.StatusPreconditionFailed
}

// wasSent returns whether something of a request may have reached the server.
func wasSent(err error) bool {
	var op *net.OpError
	return !errors.As(err, &op) || op.Op != "dial"
}

// fault makes an error of the S3 client, which came while ctx's request was
// under way, one of this package's.
func (s *S3) fault(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errNoAnswer) {
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	where := fmt.Sprintf("%s: bucket %s at %s", doing, s.bucket, s.endpoint)
	var answer minio.ErrorResponse
	var sts credentials.ErrorResponse
	switch {
	case errors.As(err, &answer):
		return s.refusal(doing, where, answer)
	case errors.Is(err, errNoCredentials):
		return fmt.Errorf("%s: %w", where, err)
	case errors.As(err, &sts):
		return fmt.Errorf("%s: %w: check the role and what may assume it", where, err)
	case isUntrusted(err):
		return fmt.Errorf("%s: %w: name the CA's file, or correct the endpoint's host name", where, err)
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, new(tls.RecordHeaderError)):
		return fmt.Errorf("%s: it does not speak TLS: give the endpoint as http://", where)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %s: no answer in time", ErrUnavailable, where)
	default:
		// Not %w: an io.EOF in it is that of a connection, not of a pack.
		return fmt.Errorf("%w: %s: %s", ErrUnavailable, where, err.Error())
	}
}

func isUntrusted(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) ||
		errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.HostnameError))
}

// refusal makes an answer that is no success an error that says what to do.
func (s *S3) refusal(doing, where string, answer minio.ErrorResponse) error {
	said := answer.Code
	if m := answer.Error(); m != said {
		said += ": " + m
	}
	switch answer.Code {
	case minio.NoSuchKey:
		return fmt.Errorf("%s: %w", doing, ErrNotFound)
	case minio.InvalidRange:
		return fmt.Errorf("%s: %w: %s", doing, io.ErrUnexpectedEOF, said)
	case minio.NoSuchBucket:
		return fmt.Errorf("%s: there is no such bucket: create it, or correct its name", where)
	case minio.AccessDenied, minio.AllAccessDisabled:
		return fmt.Errorf("%s: %s: allow these credentials s3:ListBucket on the bucket, "+
			"and s3:GetObject, s3:PutObject and s3:DeleteObject on %s*", where, said, s.prefix)
	case minio.InvalidAccessKeyID, minio.SignatureDoesNotMatch, "InvalidToken", "XAdminUserNotFound":
		return fmt.Errorf("%s: %s: check the access key's ID and its secret", where, said)
	case minio.RequestTimeTooSkewed:
		return fmt.Errorf("%s: %s: set this machine's clock", where, said)
	case minio.AuthorizationHeaderMalformed, minio.InvalidRegion, "PermanentRedirect", "TemporaryRedirect":
		if answer.Region != "" {
			said += fmt.Sprintf(" (the bucket's is %s)", answer.Region)
		}
		return fmt.Errorf("%s: %s: give the bucket's region, and its endpoint", where, said)
	case "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage":
		return fmt.Errorf("%w: %s: %s", ErrNoSpace, where, said)
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "Throttling", "ThrottlingException",
		"RequestLimitExceeded", "RequestThrottled", "ExpiredToken", "ExpiredTokenException", "ConditionalRequestConflict":
		return fmt.Errorf("%w: %s: %s", ErrUnavailable, where, said)
	}
	switch {
	case answer.StatusCode == http.StatusPreconditionFailed:
		return fmt.Errorf("%s: %w", doing, ErrExists)
	case answer.StatusCode == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: %s: %s", ErrNoSpace, where, said)
	case answer.StatusCode == http.StatusNotImplemented:
		return fmt.Errorf("%s: %s", where, said)
	case answer.StatusCode >= 500, answer.StatusCode == http.StatusTooManyRequests, answer.StatusCode == http.StatusRequestTimeout:
		return fmt.Errorf("%w: %s: %s", ErrUnavailable, where, said)
	}
	return fmt.Errorf("%s: %s", where, said)
}
