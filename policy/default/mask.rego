# Paths of a decision record that leave this machine erased. OPA's own form: JSON pointers into the record.
package system.log

mask contains "/input/subject/email"

mask contains "/input/subject/claims"
