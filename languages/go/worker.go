// Package worker runs the calls of one function: see docs/reference/worker-protocol.md.
package worker

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxBody    = 1 << 20
	maxMessage = 16 << 10
	maxTrace   = 200
)

type header struct {
	Type        string `json:"type"`
	ID          *int64 `json:"id,omitempty"`
	Protocol    int    `json:"protocol,omitempty"`
	Handler     string `json:"handler,omitempty"`
	Source      string `json:"source,omitempty"`
	ResultLimit int    `json:"result_limit,omitempty"`
	ContextLen  int    `json:"context_len,omitempty"`
	DeadlineMs  *int64 `json:"deadline_ms,omitempty"`
	More        bool   `json:"more,omitempty"`
}

type fault struct {
	Type       string   `json:"type,omitempty"`
	Message    string   `json:"message"`
	Stacktrace []string `json:"stacktrace"`
}

// channel is the inherited socket.
type channel struct {
	file *os.File
	lock sync.Mutex
}

func (c *channel) read() (header, []byte, error) {
	var head header
	var prefix [8]byte
	if _, err := io.ReadFull(c.file, prefix[:]); err != nil {
		return head, nil, err
	}
	text := make([]byte, binary.BigEndian.Uint32(prefix[:4]))
	body := make([]byte, binary.BigEndian.Uint32(prefix[4:]))
	if _, err := io.ReadFull(c.file, text); err != nil {
		return head, nil, err
	}
	if _, err := io.ReadFull(c.file, body); err != nil {
		return head, nil, err
	}
	return head, body, json.Unmarshal(text, &head)
}

func (c *channel) send(head header, body []byte) {
	text, _ := json.Marshal(head)
	frame := make([]byte, 8, 8+len(text)+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(text)))
	binary.BigEndian.PutUint32(frame[4:], uint32(len(body)))
	frame = append(append(frame, text...), body...)
	c.lock.Lock()
	defer c.lock.Unlock()
	// Where the supervisor is gone, so are we.
	if _, err := c.file.Write(frame); err != nil {
		os.Exit(1)
	}
}

func (c *channel) sendResult(id int64, body []byte) {
	kind := "head"
	for len(body) > maxBody {
		c.send(header{Type: kind, ID: &id}, body[:maxBody])
		body, kind = body[maxBody:], "chunk"
	}
	c.send(header{Type: "end", ID: &id}, body)
}

func (c *channel) sendFault(head header, failed fault) {
	if len(failed.Message) > maxMessage {
		failed.Message = failed.Message[:maxMessage]
	}
	failed.Message = strings.ToValidUTF8(failed.Message, "\uFFFD")
	if len(failed.Stacktrace) > maxTrace {
		failed.Stacktrace = failed.Stacktrace[:maxTrace]
	}
	if failed.Stacktrace == nil {
		failed.Stacktrace = []string{}
	}
	body, _ := json.Marshal(failed)
	c.send(head, body)
}

// call is one whose pieces arrive.
type call struct {
	id         int64
	contextLen int
	deadline   *int64
	body       []byte
}

type contextKey struct{}

var (
	errorType   = reflect.TypeOf((*error)(nil)).Elem()
	contextType = reflect.TypeOf((*context.Context)(nil)).Elem()
)

// handler is a function of the user's, of one of the forms that check allows.
type handler struct {
	name     string
	function reflect.Value
}

func (h handler) check() error {
	kind := h.function.Type()
	if kind.Kind() != reflect.Func || kind.IsVariadic() {
		return fmt.Errorf("handler %q is a %s; it must be a function of a payload, or of a context and a payload", h.name, kind)
	}
	if kind.NumIn() < 1 || kind.NumIn() > 2 {
		return fmt.Errorf("handler %q takes %d arguments; it must take a payload, or a context and a payload", h.name, kind.NumIn())
	}
	out := kind.NumOut()
	if out > 2 || out == 2 && kind.Out(1) != errorType {
		return fmt.Errorf("handler %q must return a result, an error, or both in this order", h.name)
	}
	return nil
}

// refused is an error that is the caller's.
type refused struct{ error }

func (refused) InputError() {}

// run calls the function. What it returns can be written as JSON.
func (h handler) run(ctx context.Context, about, payload []byte) (result any, err error) {
	kind := h.function.Type()
	decode := func(what string, data []byte, into reflect.Type) (reflect.Value, error) {
		value := reflect.New(into)
		if err := json.Unmarshal(data, value.Interface()); err != nil {
			return value, refused{fmt.Errorf("the %s does not fit %s: %w", what, into, err)}
		}
		return value.Elem(), nil
	}
	var arguments []reflect.Value
	if kind.NumIn() == 2 {
		if kind.In(0) == contextType {
			arguments = append(arguments, reflect.ValueOf(ctx))
		} else {
			value, err := decode("context", about, kind.In(0))
			if err != nil {
				return nil, err
			}
			arguments = append(arguments, value)
		}
	}
	value, err := decode("payload", payload, kind.In(kind.NumIn()-1))
	if err != nil {
		return nil, err
	}
	returned := h.function.Call(append(arguments, value))
	if last := len(returned) - 1; last >= 0 && kind.Out(last) == errorType {
		err, _ = returned[last].Interface().(error)
		returned = returned[:last]
	}
	if err == nil && len(returned) == 1 {
		result = returned[0].Interface()
	}
	return result, err
}

func describe(err error) fault {
	var input interface{ InputError() }
	kind := "FunctionError"
	if errors.As(err, &input) {
		kind = "InputError"
	}
	message := err.Error()
	if message == "" {
		message = fmt.Sprintf("%T", err)
	}
	return fault{Type: kind, Message: message}
}

// Context returns what Dispatch says about a call: its secrets, the request it came as.
func Context(ctx context.Context) map[string]any {
	about, _ := ctx.Value(contextKey{}).(map[string]any)
	return about
}

type worker struct {
	channel *channel
	handler handler
	limit   int
	lock    sync.Mutex
	cancels map[int64]context.CancelFunc
}

// Serve runs calls until the supervisor closes the channel.
func Serve(name string, function any) {
	// Not for processes that the function starts, and not where it looks for descriptors of its own.
	fd, err := syscall.Dup(3)
	if err != nil {
		os.Exit(1)
	}
	syscall.Close(3)
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		os.Exit(1)
	}
	w := &worker{
		channel: &channel{file: os.NewFile(uintptr(fd), "channel")},
		handler: handler{name: name, function: reflect.ValueOf(function)},
		cancels: map[int64]context.CancelFunc{},
	}
	w.channel.send(header{Type: "hello", Protocol: 1}, nil)
	partial := map[int64]*call{}
	for {
		head, body, err := w.channel.read()
		if err != nil {
			os.Exit(0)
		}
		switch head.Type {
		case "init":
			if !w.start(head, body) {
				os.Exit(0)
			}
			continue
		case "ping":
			w.channel.send(header{Type: "pong"}, nil)
			continue
		case "cancel":
			w.cancel(*head.ID)
			continue
		case "call":
			partial[*head.ID] = &call{*head.ID, head.ContextLen, head.DeadlineMs, body}
		case "chunk", "end":
			if one := partial[*head.ID]; one != nil {
				one.body = append(one.body, body...)
			}
		}
		if head.ID == nil || head.Type == "chunk" || head.More {
			continue
		}
		one := partial[*head.ID]
		delete(partial, *head.ID)
		if one == nil {
			continue
		}
		// Also where one runs at a time: `cancel` is to arrive meanwhile.
		go w.run(w.begin(one), one)
	}
}

func (w *worker) start(head header, environment []byte) bool {
	var variables map[string]string
	_ = json.Unmarshal(environment, &variables)
	for name, value := range variables {
		os.Setenv(name, value)
	}
	w.limit = head.ResultLimit
	if err := w.handler.check(); err != nil {
		w.channel.sendFault(header{Type: "failed"}, fault{Message: err.Error()})
		return false
	}
	w.channel.send(header{Type: "ready", Handler: w.handler.name}, nil)
	return true
}

func (w *worker) begin(one *call) context.Context {
	var about map[string]any
	_ = json.Unmarshal(one.body[:one.contextLen], &about)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), contextKey{}, about))
	if one.deadline != nil {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*one.deadline)*time.Millisecond)
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	w.cancels[one.id] = cancel
	return ctx
}

func (w *worker) cancel(id int64) {
	w.lock.Lock()
	defer w.lock.Unlock()
	if cancel := w.cancels[id]; cancel != nil {
		cancel()
	}
	delete(w.cancels, id)
}

func (w *worker) run(ctx context.Context, one *call) {
	result, failed := w.attempt(ctx, one)
	w.cancel(one.id)
	if failed != nil {
		w.channel.sendFault(header{Type: "error", ID: &one.id}, *failed)
		return
	}
	w.channel.sendResult(one.id, result)
}

func (w *worker) attempt(ctx context.Context, one *call) (result []byte, failed *fault) {
	defer func() {
		if cause := recover(); cause != nil {
			var lines []string
			for _, line := range strings.Split(string(debug.Stack()), "\n") {
				lines = append(lines, strings.TrimSpace(line))
			}
			failed = &fault{Type: "FunctionError", Message: fmt.Sprintf("panic: %v", cause), Stacktrace: lines}
		}
	}()
	about, payload := one.body[:one.contextLen], one.body[one.contextLen:]
	value, err := w.handler.run(ctx, about, payload)
	if err != nil {
		described := describe(err)
		return nil, &described
	}
	result, err = json.Marshal(value)
	if err != nil {
		return nil, &fault{Type: "FunctionError", Message: "the result cannot be written as JSON: " + err.Error()}
	}
	if len(result) > w.limit {
		message := fmt.Sprintf("the result has %d bytes as JSON, but may have at most %d", len(result), w.limit)
		return nil, &fault{Type: "FunctionError", Message: message}
	}
	return result, nil
}
