package observe

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

var (
	pgConnections = desc("postgres_connections", "Connections to PostgreSQL, by pool and state.", "pool", "state")
	pgMax         = desc("postgres_max_connections", "How many connections to PostgreSQL a pool may have.", "pool")
	pgAcquires    = desc("postgres_acquires_total", "How often a connection was taken from a pool.", "pool")
	pgWaited      = desc("postgres_acquire_wait_seconds_total", "How long was waited for connections of a pool.", "pool")

	cacheBytes  = desc("pack_cache_bytes", "Bytes of packs that are cached on this machine.")
	cacheLimit  = desc("pack_cache_limit_bytes", "How many bytes of packs may be.")
	cacheBlocks = desc("pack_cache_blocks_total", "Blocks of packs that were read from the cache (hit), fetched into it (miss), or read past it (around).", "result")
	cacheOK     = desc("pack_cache_disk_ok", "1, or 0 while the disk of the cache fails.")

	uploadBytes = desc("upload_memory_bytes", "Bytes of memory that uploads hold or have reserved, until they are stored.")
)

// Pools tells of the connection pools of an index in PostgreSQL.
type Pools func() map[string]*pgxpool.Stat

// Describe implements prometheus.Collector.
func (p Pools) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{pgConnections, pgMax, pgAcquires, pgWaited} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (p Pools) Collect(out chan<- prometheus.Metric) {
	for name, s := range p() {
		for state, n := range map[string]int32{"idle": s.IdleConns(), "used": s.AcquiredConns(), "connecting": s.ConstructingConns()} {
			out <- prometheus.MustNewConstMetric(pgConnections, prometheus.GaugeValue, float64(n), name, state)
		}
		out <- prometheus.MustNewConstMetric(pgMax, prometheus.GaugeValue, float64(s.MaxConns()), name)
		out <- prometheus.MustNewConstMetric(pgAcquires, prometheus.CounterValue, float64(s.AcquireCount()), name)
		out <- prometheus.MustNewConstMetric(pgWaited, prometheus.CounterValue, s.EmptyAcquireWaitTime().Seconds(), name)
	}
}

// PackCache tells of a cache of packs.
type PackCache func() packstore.CacheStats

// Describe implements prometheus.Collector.
func (p PackCache) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{cacheBytes, cacheLimit, cacheBlocks, cacheOK} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (p PackCache) Collect(out chan<- prometheus.Metric) {
	s := p()
	out <- prometheus.MustNewConstMetric(cacheBytes, prometheus.GaugeValue, float64(s.Used))
	out <- prometheus.MustNewConstMetric(cacheLimit, prometheus.GaugeValue, float64(s.Limit))
	for result, n := range map[string]int64{"hit": s.Hits, "miss": s.Misses, "around": s.Around} {
		out <- prometheus.MustNewConstMetric(cacheBlocks, prometheus.CounterValue, float64(n), result)
	}
	ok := 1.0
	if s.DiskErr != nil {
		ok = 0
	}
	out <- prometheus.MustNewConstMetric(cacheOK, prometheus.GaugeValue, ok)
}

// UploadMemory tells how many bytes of memory uploads hold.
type UploadMemory func() int64

// Describe implements prometheus.Collector.
func (u UploadMemory) Describe(out chan<- *prometheus.Desc) { out <- uploadBytes }

// Collect implements prometheus.Collector.
func (u UploadMemory) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(uploadBytes, prometheus.GaugeValue, float64(u()))
}
