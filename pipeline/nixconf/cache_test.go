package nixconf

import "testing"

const goodKey = "main-1:7xaD3dvlHBTP7r7xOQAXmRSbNCSGP9qN7vpGKhbuFcQ="

func TestWhatIsNoKeyStaysOutOfTheSettings(t *testing.T) {
	t.Parallel()
	if err := CheckKey(goodKey); err != nil {
		t.Error(err)
	}
	for _, key := range []string{
		"", "main-1", ":" + goodKey[7:], "main-1:", "main-1:AAAA", goodKey + "=", goodKey + "\n", " " + goodKey,
		goodKey + "\nsandbox = false", goodKey + " other:AAAA", goodKey[:20] + "\n" + goodKey[20:], "a b" + goodKey[6:],
	} {
		if err := CheckKey(key); err == nil {
			t.Errorf("%q is taken", key)
		}
	}
}
