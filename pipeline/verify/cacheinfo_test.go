package verify

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseCacheInfo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       CacheInfo
		err        string
	}{
		{"all", healthy, CacheInfo{"/nix/store", true, 41}, ""},
		{"as nix makes it in a new cache", "StoreDir: /nix/store\n", CacheInfo{"/nix/store", false, 50}, ""},
		{"no newline at the end", "StoreDir: /nix/store", CacheInfo{"/nix/store", false, 50}, ""},
		{"carriage returns and spaces", " StoreDir:/nix/store \r\n\r\nPriority: 30\r\n", CacheInfo{"/nix/store", false, 30}, ""},
		{"zeros", "StoreDir: /s\nWantMassQuery: 0\nPriority: 0\n", CacheInfo{"/s", false, 0}, ""},
		{"keys of later versions", "StoreDir: /s\nCompression: zstd\n", CacheInfo{"/s", false, 50}, ""},
		{"empty", "", CacheInfo{}, "there is no StoreDir"},
		{"no store", "Priority: 1\n", CacheInfo{}, "there is no StoreDir"},
		{"empty store", "StoreDir:\n", CacheInfo{}, `StoreDir "" is no absolute path`},
		{"relative store", "StoreDir: nix/store\n", CacheInfo{}, `StoreDir "nix/store" is no absolute path`},
		{"other case", "storedir: /s\n", CacheInfo{}, "there is no StoreDir"},
		{"twice", "StoreDir: /a\nStoreDir: /b\n", CacheInfo{}, "StoreDir stands there twice"},
		{"words", "it works\n", CacheInfo{}, `"it works" is no line of a nix-cache-info`},
		{"no key", ": x\n", CacheInfo{}, `": x" is no line`},
		{"a page", "<meta x:y>\nStoreDir: /s\n", CacheInfo{}, "is no line"},
		{"mass query", "StoreDir: /s\nWantMassQuery: yes\n", CacheInfo{}, `WantMassQuery "yes" is neither 0 nor 1`},
		{"priority", "StoreDir: /s\nPriority: high\n", CacheInfo{}, `priority "high" is no number`},
		{"large priority", "StoreDir: /s\nPriority: 9999999999\n", CacheInfo{}, `priority "9999999999" is no number`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseCacheInfo(tt.text)
			switch {
			case tt.err == "" && (err != nil || got != tt.want):
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("got %+v, %v, want %s", got, err, tt.err)
			}
		})
	}
}

// What is read can be written and read again, and no fault spans lines.
func FuzzParseCacheInfo(f *testing.F) {
	f.Add(healthy)
	f.Add("StoreDir: /nix/store")
	f.Add("<html>\n")
	f.Add("StoreDir: /a\r\nPriority: -1\nX:\x1b[2J\n")
	f.Fuzz(func(t *testing.T, text string) {
		info, err := ParseCacheInfo(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Fatalf("%q", err)
			}
			return
		}
		if !strings.HasPrefix(info.StoreDir, "/") {
			t.Fatalf("%+v", info)
		}
		query := 0
		if info.WantMassQuery {
			query = 1
		}
		again, err := ParseCacheInfo(fmt.Sprintf("StoreDir: %s\nWantMassQuery: %d\nPriority: %d\n", info.StoreDir, query, info.Priority))
		if err != nil || again != info {
			t.Fatalf("%+v became %+v, %v", info, again, err)
		}
	})
}
