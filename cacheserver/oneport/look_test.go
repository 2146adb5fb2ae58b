package oneport

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is the beginning of a connection, with acknowledgements in it.
func frames(write func(f *http2.Framer)) []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	write(http2.NewFramer(&b, nil))
	return b.Bytes()
}

func TestOnlyTheFirstAcknowledgementIsLeftOut(t *testing.T) {
	t.Parallel()
	const data = "bytes that look like a frame: \x00\x00\x00\x04\x01\x00\x00\x00\x00"
	stream := func(acks int) []byte {
		return frames(func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush})
			_ = f.WriteData(1, false, []byte(data))
			for range acks {
				_ = f.WriteSettingsAck()
			}
			_ = f.WriteData(1, true, []byte(data))
		})
	}
	for name, by := range map[string]func(io.Reader) io.Reader{
		"at once":     func(r io.Reader) io.Reader { return r },
		"by the byte": iotest.OneByteReader,
		"with halves": iotest.HalfReader,
	} {
		for acks := 1; acks < 4; acks++ {
			w := &withoutAck{r: by(bytes.NewReader(stream(acks))), pass: len(http2.ClientPreface)}
			got, err := io.ReadAll(w)
			if want := stream(acks - 1); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %d of them:\ngot  %q\nwant %q, %v", name, acks, got, want, err)
			}
		}
	}
}

func FuzzFirstIsGRPC(f *testing.F) {
	request := func(fields ...hpack.HeaderField) []byte {
		return frames(func(f *http2.Framer) {
			var b bytes.Buffer
			e := hpack.NewEncoder(&b)
			for _, field := range fields {
				_ = e.WriteField(field)
			}
			_ = f.WriteSettings()
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.Bytes(), EndHeaders: true})
		})[len(http2.ClientPreface):]
	}
	f.Add(request(hpack.HeaderField{Name: "content-type", Value: "application/grpc+proto"}))
	f.Add(request(hpack.HeaderField{Name: "content-type", Value: "text/plain"}))
	f.Add(request(hpack.HeaderField{Name: "content-type", Value: "application/grpc"}, hpack.HeaderField{Name: "via", Value: "x"}))
	f.Add([]byte{0, 0, 0, 4, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		if own, err := firstIsGRPC(r); own && err != nil {
			t.Errorf("gRPC, and %v", err)
		}
		// Whatever it is, net/http gets it, but for an acknowledgement and for a
		// header that ends early.
		got, err := io.ReadAll(&withoutAck{r: bytes.NewReader(data)})
		if lost := len(data) - len(got); err != nil || lost < 0 || lost >= 2*frameHead {
			t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
		}
	})
}
