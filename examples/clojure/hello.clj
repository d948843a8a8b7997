(ns hello)

(defn handle
  "Greets somebody."
  [context {:keys [name place] :or {name "Noone" place "Nowhere"}}]
  (println "greeting" name)
  {:myField (str "Hello, " name " from " place)})
