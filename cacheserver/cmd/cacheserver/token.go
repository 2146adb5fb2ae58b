package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
)

const keysHelp = `
The key is that of --hs256-file or --rs256-file, or else the first that one of the
environment variables below holds, or that the table [auth] has in the file of
--auth or --config. The variables:
CACHESERVER_TOKEN_HS256_SECRET_BASE64,
ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64, CACHESERVER_TOKEN_RS256_SECRET_BASE64,
ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64, CACHESERVER_TOKEN_RS256_PUBKEY_BASE64,
ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64.`

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make and inspect the tokens of a server with access control",
		Long: `A token says what its bearer may do with which caches. Clients send it as
"Authorization: Bearer", or as the password of a netrc entry.`,
	}
	cmd.AddCommand(tokenMakeCommand(), tokenInspectCommand(), tokenKeyCommand())
	return cmd
}

// keyFlags are the flags that name a key.
type keyFlags struct {
	hs256, rs256 string
	settings     *config.Settings
}

func (k *keyFlags) add(f *pflag.FlagSet) {
	k.settings = config.New()
	k.settings.AddFlags(f, config.Tokens)
	f.StringVar(&k.hs256, "hs256-file", "", "`file` with the base64 of an HS256 key")
	f.StringVar(&k.rs256, "rs256-file", "", "`file` with an RS256 key as PEM, or as base64 of that")
}

// key returns the key, or nil when there is none.
func (k *keyFlags) key() (*auth.Key, error) {
	read, file := auth.ReadHS256, k.hs256
	switch {
	case k.hs256 != "" && k.rs256 != "":
		return nil, usageError{errors.New("--hs256-file and --rs256-file exclude one another")}
	case k.rs256 != "":
		read, file = auth.ReadRS256, k.rs256
	case k.hs256 == "":
		return k.settingsKey()
	}
	key, err := read(file)
	if err != nil {
		return nil, err
	}
	return &key, nil
}

// settingsKey returns the first key of a server's configuration, or of the
// environment, or nil.
func (k *keyFlags) settingsKey() (*auth.Key, error) {
	if err := k.settings.Load(os.Getenv); err != nil {
		return nil, err
	}
	keys, err := k.settings.Server.Auth.OwnKeys()
	if err == nil && len(keys) == 0 {
		keys, err = auth.KeysFrom(os.Getenv)
	}
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return &keys[0], nil
}

type tokenOptions struct {
	keyFlags
	auth.Claims
	expires  string
	patterns map[auth.Right]*[]string
}

// grantHelp says what the flag of each right gives.
var grantHelp = map[auth.Right]string{
	auth.Pull:               "may read paths",
	auth.Push:               "may add paths",
	auth.Delete:             "may remove paths",
	auth.Create:             "may make the cache",
	auth.Configure:          "may change the cache's settings",
	auth.ConfigureRetention: "may change how long the cache keeps paths",
	auth.Destroy:            "may remove the cache",
}

func tokenMakeCommand() *cobra.Command {
	o := tokenOptions{patterns: map[auth.Right]*[]string{}}
	cmd := &cobra.Command{
		Use:   "make",
		Short: "Make a token, and print it",
		Long: `Signs a token for the given caches. In their names, * stands for any characters or
none; quote it. A flag may be given more than once. A name that several patterns
match has the rights of the narrowest, which holds those of the wider.

Whoever has the token has its rights until it expires: a server knows no other
end of it than a change of the key.
` + keysHelp + `

Exit status: 0 made, 1 failed, 2 bad usage.`,
		Example: `  cacheserver token make --sub ci --pull 'main*' --push main --expires 90d --hs256-file key
  cacheserver token make --sub admin --pull '*' --push '*' --create-cache '*' --configure-cache '*' --expires 12h`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := o.make()
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), token)
			}
			return err
		},
	}
	f := cmd.Flags()
	o.add(f)
	f.StringVar(&o.Subject, "sub", "", "`name` of the bearer, for logs and records")
	f.StringVar(&o.expires, "expires", "", "after what `time` it ends, such as 90d or 12h, or never")
	f.StringVar(&o.Issuer, "issuer", "", "`name` of the issuer, where the server wants one")
	f.StringSliceVar(&o.Audience, "audience", nil, "`name` of the server, where it wants to be named")
	for _, right := range auth.AllRights() {
		o.patterns[right] = f.StringSlice(right.String(), nil, grantHelp[right]+" of caches of this `pattern`")
	}
	return cmd
}

func (o *tokenOptions) make() (string, error) {
	if o.Subject == "" {
		return "", usageError{errors.New("--sub is missing: the name of the token's bearer")}
	}
	if o.expires == "" {
		return "", usageError{errors.New("--expires is missing, such as 90d")}
	}
	lives, err := config.ParseAge(o.expires)
	if err != nil {
		return "", usageError{fmt.Errorf("--expires %q: want days such as 90d, hours such as 12h, or never", o.expires)}
	}
	var grants []auth.Grant
	for right, patterns := range o.patterns {
		for _, p := range *patterns {
			grants = append(grants, auth.Grant{Pattern: p, Rights: right})
		}
	}
	if len(grants) == 0 {
		return "", usageError{errors.New("the token would give no rights: --pull or --push gives some")}
	}
	if o.Rights, err = auth.NewRights(grants...); err != nil {
		return "", usageError{err}
	}
	key, err := o.key()
	if err != nil {
		return "", err
	}
	if key == nil {
		return "", usageError{errors.New("there is no key to sign with: --hs256-file, --rs256-file or the environment gives one; token key makes one")}
	}
	o.Issued = time.Now()
	if lives != 0 {
		o.Expires = o.Issued.Add(lives)
	}
	return auth.Sign(o.Claims, *key)
}

func tokenInspectCommand() *cobra.Command {
	var k keyFlags
	cmd := &cobra.Command{
		Use:   "inspect [TOKEN]",
		Short: "Show what a token says, and whether it is good",
		Long: `Shows the rights that a token gives, or, of the ID token of an OIDC issuer, the
claims that a server's rules can match. Without TOKEN it is read from stdin, where
other users of the machine do not see it.
` + keysHelp + `
Without a key, the signature is not checked.

Exit status: 0 the token is good as far as it was checked, 1 it is not, or
failed, 2 bad usage.`,
		Example: `  cacheserver token inspect --hs256-file key <token`,
		Args:    atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := tokenFrom(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			key, err := k.key()
			if err != nil {
				return err
			}
			return inspect(cmd.OutOrStdout(), token, key, time.Now())
		},
	}
	k.add(cmd.Flags())
	return cmd
}

func tokenFrom(args []string, in io.Reader) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	const enough = 64 << 10 // a longer one is none
	text, err := io.ReadAll(io.LimitReader(in, enough))
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func inspect(out io.Writer, token string, key *auth.Key, now time.Time) error {
	info, err := auth.Inspect(token)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, visible(value))
		}
	}
	row("subject", info.Subject)
	row("issuer", info.Issuer)
	row("audience", strings.Join(info.Audience, ", "))
	row("algorithm", info.Algorithm)
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"issued", info.Issued}, {"starts", info.Starts}} {
		if !t.at.IsZero() {
			row(t.name, day(t.at))
		}
	}
	row("expires", day(info.Expires))
	if key == nil {
		row("signature", "not checked, for want of a key")
	} else if err = key.Checks(token); err == nil {
		row("signature", "good, by the "+key.String())
	} else {
		row("signature", err.Error())
	}
	fmt.Fprintln(w)
	if info.Rights == nil {
		fmt.Fprintln(w, "CLAIM\tVALUE")
		for _, name := range slices.Sorted(maps.Keys(info.Values)) {
			row(visible(name), strings.Join(info.Values[name], ", "))
		}
	} else {
		fmt.Fprintln(w, "CACHE\tRIGHTS")
		for _, g := range info.Rights {
			row(g.Pattern, g.Rights.String())
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case err != nil:
		return err
	case !info.Expires.IsZero() && now.After(info.Expires):
		return auth.ErrExpired
	case now.Before(info.Starts):
		return auth.ErrNotYetValid
	}
	return nil
}

// visible keeps what a token holds from steering the terminal.
func visible(text string) string {
	quoted := fmt.Sprintf("%+q", text)
	if plain := quoted[1 : len(quoted)-1]; plain == text {
		return text
	}
	return quoted
}

func tokenKeyCommand() *cobra.Command {
	var rs256 bool
	var publicOf string
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make a key that signs tokens, and print it",
		Long: `Makes an HS256 key, which signs and checks, or with --rs256 an RSA key of 4096
bits. It is printed as base64, as --hs256-file, --rs256-file and Attic read it. Of
an RSA key, a server needs only the public half, which --public-of prints.

Exit status: 0 made, 1 failed, 2 bad usage.`,
		Example: `  (umask 077; cacheserver token key >key)
  (umask 077; cacheserver token key --rs256 >private.key)
  cacheserver token key --public-of private.key >public.pem`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			var text string
			switch {
			case rs256 && publicOf != "":
				return usageError{errors.New("--rs256 and --public-of exclude one another")}
			case publicOf != "":
				var key auth.Key
				if key, err = auth.ReadRS256(publicOf); err == nil {
					text, err = key.Public()
				}
			case rs256:
				var key auth.Secret
				key, err = auth.GenerateRS256()
				text = string(key) + "\n"
			default:
				text = string(auth.GenerateHS256()) + "\n"
			}
			if err == nil {
				_, err = io.WriteString(cmd.OutOrStdout(), text)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&rs256, "rs256", false, "make an RSA key")
	cmd.Flags().StringVar(&publicOf, "public-of", "", "print the public half of the RSA key in this `file`")
	return cmd
}
