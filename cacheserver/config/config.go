// Package config is the server's configuration: one list of settings, each of
// which a flag, an environment variable and a key of a TOML file can set, in that
// order of precedence, and the tables of that file: [auth] and [[cache]].
package config

import (
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// variablePrefix begins the environment variables of settings.
const variablePrefix = "CACHESERVER_"

// fileFlag names the file.
const fileFlag = "config"

// What LogFormat can be.
const (
	Text = "text"
	JSON = "json"
)

// Settings are the values of all settings, at first their defaults.
type Settings struct {
	Server     cacheserver.Config
	Listen     string
	GRPCListen string
	AuthFile   string
	LogLevel   slog.Level
	LogFormat  string
	Verbose    bool

	// File is the configuration file; empty where there is none.
	File string

	sections []section
	used     Group
	doc      *document
	authDoc  *document // the one that has [auth]; nil where none has
}

// New returns the defaults.
func New() *Settings {
	const packCache = 10 << 30
	s := &Settings{
		Listen: "127.0.0.1:8080", LogLevel: slog.LevelInfo, LogFormat: Text,
		Server: cacheserver.Config{
			Data: defaultData(), StoreDir: storepath.DefaultDir, PackCache: packCache, CollectEvery: time.Hour,
			Policy: collect.Policy{Retention: nixcache.DefaultRetention, HoldTime: collect.DefaultHoldTime, Grace: cas.DefaultGrace},
			Limits: cacheserver.DefaultLimits(), Drain: cacheserver.Drain{Time: cacheserver.DefaultDrainTime},
		},
	}
	s.sections = s.table()
	for _, x := range s.all() {
		x.flag = &pflag.Flag{Name: x.Name, Shorthand: x.Short, Usage: x.Help, Value: x.Value, DefValue: x.Value.String()}
		if x.Value.Type() == kindBool {
			x.flag.NoOptDefVal = "true"
		}
	}
	return s
}

func defaultData() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "attic-cache"
	}
	return filepath.Join(dir, "attic-cache")
}

func (s *Settings) all() []*Setting {
	var all []*Setting
	for _, x := range s.sections {
		all = append(all, x.settings...)
	}
	return all
}

// key is a setting's in the file.
func (x *Setting) key() string { return strings.ReplaceAll(x.Name, "-", "_") }

// variables are those that set it, the first that is set before the others.
func (x *Setting) variables() []string {
	own := variablePrefix + strings.ToUpper(x.key())
	if x.Variable == "" {
		return []string{own}
	}
	return []string{own, x.Variable}
}

// AddFlags adds the flags of the groups' settings, and --config.
func (s *Settings) AddFlags(f *pflag.FlagSet, groups Group) {
	s.used |= groups
	f.StringVar(&s.File, fileFlag, s.File, "TOML `file` with settings; flags and the environment go before it")
	for _, x := range s.all() {
		if x.Group&groups != 0 && !x.Secret {
			f.AddFlag(x.flag)
		}
	}
}

// Has says whether there is a setting of a flag's name.
func (s *Settings) Has(flag string) bool {
	for _, x := range s.all() {
		if x.Name == flag {
			return true
		}
	}
	return flag == fileFlag
}

// Load sets what flags have not set from the environment, of which getenv tells,
// and then from the file. What is wrong with them it returns as Faults; the file
// is always checked as a whole, of the environment only the settings that
// AddFlags was told.
func (s *Settings) Load(getenv func(string) string) error {
	if s.File == "" {
		s.File = getenv(variablePrefix + "CONFIG")
	}
	var faults Faults
	for _, x := range s.all() {
		switch fault := x.fromEnvironment(getenv); {
		case x.flag.Changed:
			x.origin = "--" + x.Name
		case x.Group&s.used == 0:
		case fault != nil:
			faults = append(faults, fault)
		}
	}
	var err error
	if s.File != "" {
		if s.doc, err = readFile(s.File); err != nil {
			return faultsOf(faults, err)
		}
		s.fromFile(s.doc)
		faults = append(faults, s.doc.faults...)
	}
	if s.used&Tokens != 0 && len(faults) == 0 {
		if err := s.loadAuth(getenv); err != nil {
			return faultsOf(nil, err)
		}
	}
	if len(faults) == 0 {
		faults = s.check()
	}
	return faults.err()
}

// faultsOf adds an error to faults: one that is a fault, or many, or about a file
// that cannot be read.
func faultsOf(faults Faults, err error) error {
	var fault *Fault
	var more Faults
	switch {
	case errors.As(err, &more):
		faults = append(faults, more...)
	case errors.As(err, &fault):
		faults = append(faults, fault)
	default:
		faults = append(faults, &Fault{Reason: err.Error()})
	}
	return faults.err()
}

func (x *Setting) fromEnvironment(getenv func(string) string) *Fault {
	for _, name := range x.variables() {
		text := getenv(name)
		if x.flag.Changed || x.origin != "" || text == "" {
			continue
		}
		if err := x.Value.Set(text); err != nil {
			return &Fault{Key: x.quoted(name, text), Reason: err.Error()}
		}
		x.origin = name
	}
	return nil
}

// quoted is a name with its value, unless that is not to be shown.
func (x *Setting) quoted(name, text string) string {
	if x.Secret || x.mask != nil {
		return name
	}
	return name + "=" + strconv.Quote(text)
}

// shown is a setting's value as it may be shown.
func (x *Setting) shown() string {
	text := x.Value.String()
	switch {
	case x.Secret && text != "":
		return "…"
	case x.mask != nil:
		return x.mask(text)
	}
	return text
}

// withoutPassword masks what may be secret in a URL.
func withoutPassword(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	u, err := url.Parse(s)
	if err != nil || u.RawQuery != "" || u.Opaque != "" {
		rest, _, _ = strings.Cut(rest, "?")
		return scheme + "://…" + rest[strings.LastIndex(rest, "@")+1:]
	}
	if _, ok := u.User.Password(); ok {
		return scheme + "://" + u.User.Username() + ":…" + rest[strings.LastIndex(rest, "@"):]
	}
	return s
}

// loadAuth reads who may do what: from the file that --auth names, or else from
// the table of the configuration. Keys may be in the environment instead.
func (s *Settings) loadAuth(getenv func(string) string) (err error) {
	switch {
	case s.AuthFile != "":
		if s.authDoc, err = readFile(s.AuthFile); err != nil {
			return err
		}
		for key := range s.authDoc.values {
			if key != authKey {
				s.authDoc.fault(below("", key), "of this file, only the table [auth] is read; the other settings belong into that of --config")
			}
		}
		if !s.authDoc.hasAuth() {
			s.authDoc.fault(authKey, "want a table [auth]")
			return s.authDoc.faults.err()
		}
	case s.doc != nil && s.doc.hasAuth():
		s.authDoc = s.doc
	default:
		return nil
	}
	var c struct {
		Auth auth.Config `toml:"auth"`
	}
	s.authDoc.decode(authKey, func() any {
		c.Auth = auth.Config{Enabled: true} // whoever writes the table wants it to hold
		return &c
	})
	if err := s.authDoc.faults.err(); err != nil {
		return err
	}
	s.Server.Auth = c.Auth
	if s.Server.Auth.Keys, err = auth.KeysFrom(getenv); err != nil {
		return &Fault{Reason: err.Error()}
	}
	return nil
}

// CheckAuth reads the keys that tokens are checked with, and sees whether anybody
// could get a right: what Load leaves to who serves.
func (s *Settings) CheckAuth() error {
	if _, err := auth.New(s.Server.Auth, slog.New(slog.DiscardHandler)); err != nil {
		fault := &Fault{Reason: err.Error()}
		if s.authDoc != nil {
			fault.File, fault.Line = s.authDoc.name, s.authDoc.line(authKey)
		}
		return Faults{fault}
	}
	return nil
}
