// Package hello greets.
package hello

import "fmt"

// Input is what callers send.
type Input struct {
	Name  string `json:"name"`
	Place string `json:"place"`
}

// Output is what they get.
type Output struct {
	MyField string `json:"myField"`
}

// Handle says hello to somebody from somewhere.
func Handle(ctx map[string]any, in Input) (Output, error) {
	if in.Name == "" {
		in.Name = "Noone"
	}
	if in.Place == "" {
		in.Place = "Nowhere"
	}
	return Output{fmt.Sprintf("Hello, %s from %s", in.Name, in.Place)}, nil
}
