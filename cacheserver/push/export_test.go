package push

import "time"

// SetPatience sets how long a request without a body may take.
func (c *Client) SetPatience(d time.Duration) { c.patience = d }
