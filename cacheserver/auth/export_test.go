package auth

import "time"

// SetClock sets what an authenticator takes for the time.
func (a *Authenticator) SetClock(now func() time.Time) { a.clock.now = now }

// SetPatience sets how long its issuers may take to answer.
func (a *Authenticator) SetPatience(d time.Duration) {
	for _, s := range a.issuers {
		if i, ok := s.(*issuer); ok {
			i.keys.patience = d
		}
	}
}

// Remembered is how many tokens are remembered to be good.
func (a *Authenticator) Remembered() int { return a.verified.Len() }

// For tests of their own.
var (
	TokenOf  = tokenOf
	RightsIn = rightsIn
	Matches  = matches
)

// Limits that tests go by.
const (
	MaxToken   = maxToken
	KeysAge    = keysAge
	FetchPause = fetchPause
)
