(ns hello)

(defn handle [_ {:keys [name place]}]
  {:myField (str "Hello, " name " from " place)})
