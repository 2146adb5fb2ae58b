package index

import "github.com/jackc/pgx/v5/pgxpool"

// Pools tells how the connections fare, those for reads and that for changes.
func (x *Postgres) Pools() map[string]*pgxpool.Stat {
	return map[string]*pgxpool.Stat{"read": x.read.Stat(), "write": x.write.Stat()}
}
