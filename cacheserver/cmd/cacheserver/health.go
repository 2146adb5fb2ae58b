package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// healthTime is how long a healthy server may take to answer.
const healthTime = 5 * time.Second

func healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health [URL]",
		Short: "Ask a running server whether it is healthy",
		Long: `Asks /healthz of the server at URL, http://127.0.0.1:8080 when none is given: the
health check of an image that holds no other program.

Exit status: 0 healthy, 1 not, 2 bad usage.`,
		Example: "  cacheserver health http://127.0.0.1:8080",
		Args:    atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			server := "http://127.0.0.1:8080"
			if len(args) == 1 {
				server = args[0]
			}
			return health(cmd.Context(), server)
		},
	}
}

func health(ctx context.Context, server string) error {
	at, err := url.Parse(server)
	if err != nil || (at.Scheme != "http" && at.Scheme != "https") || at.Host == "" {
		return usageError{fmt.Errorf("URL %q: want http://HOST[:PORT] or https://…", server)}
	}
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	at = at.JoinPath("healthz")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return usageError{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", at.Redacted(), resp.Status)
	}
	return nil
}
