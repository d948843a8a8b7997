(ns zone
  (:import (org.joda.time DateTimeZone)))

(defn handle
  "Names a time zone; deps.edn brings the library."
  [context {:keys [zone] :or {zone "UTC"}}]
  {:zone (.getID (DateTimeZone/forID zone))})
