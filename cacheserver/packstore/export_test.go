package packstore

import (
	"context"
	"time"
)

// OpenS3Impatient is OpenS3 with other bounds to its waiting.
func OpenS3Impatient(ctx context.Context, c S3Config, answer time.Duration) (*S3, error) {
	s, err := newS3(c, patience{connect: answer, answer: answer, slowest: defaultPatience.slowest})
	if err != nil {
		return nil, err
	}
	return s, s.Check(ctx)
}
