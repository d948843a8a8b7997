package hello

type Person struct {
	Name  string `json:"name"`
	Place string `json:"place"`
}

func Handle(ctx map[string]any, person Person) map[string]string {
	return map[string]string{"myField": "Hello, " + person.Name + " from " + person.Place}
}
