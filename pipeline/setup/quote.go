package setup

import "strings"

// plain are the characters no POSIX shell gives a meaning to inside a word. A
// word may not start with "=", which zsh expands.
const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%_-+=:,./"

// quote returns word as a POSIX shell reads it back.
func quote(word string) string {
	if word != "" && word[0] != '=' && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
