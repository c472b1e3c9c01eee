# SPDX-License-Identifier: MIT
#
# statements.awk - C without comments, one line for each statement, brace or
# label, indented as its first line was.  Two files that agree after this
# differ in comments, in blank lines, in where statements are broken, and in
# spaces that align: what an author may choose.  With plain=1 only comments
# are taken out.

function bare(line,    out, c, two) {
    out = ""
    while (line != "") {
        c = substr(line, 1, 1)
        two = substr(line, 1, 2)
        if (comment) {
            if (two == "*/") {
                comment = 0
                line = substr(line, 2)
            }
        } else if (quote != "") {
            out = out c
            if (c == "\\") {
                line = substr(line, 2)
                out = out substr(line, 1, 1)
            } else if (c == quote)
                quote = ""
        } else if (two == "/*")
            comment = 1
        else {
            if (c == "\"" || c == "\047")
                quote = c
            out = out c
        }
        line = substr(line, 2)
    }
    return out
}

# A struct in one line, as in several.
function show(text,    body, end) {
    if (match(text, /(struct|union)( [a-z_0-9]+)? ?\{[^{}]*;\}/)) {
        end = RSTART + RLENGTH - 1
        body = substr(text, 1, end - 1)
        match(body, /\{[^{]*$/)
        printf "%*s%s\n", indent, "", substr(body, 1, RSTART)
        body = substr(body, RSTART + 1)
        while (match(body, /;/)) {
            printf "%*s%s\n", indent + 4, "", substr(body, 1, RSTART)
            body = substr(body, RSTART + 1)
            sub(/^ /, "", body)
        }
        text = substr(text, end)
    }
    printf "%*s%s\n", indent, "", text
}

{
    line = bare($0)
    sub(/[ \t]+$/, "", line)
    if (plain) {
        print line
        next
    }
    if (line == "")
        next
    match(line, /^ */)
    if (held == "")
        indent = RLENGTH
    line = substr(line, RLENGTH + 1)
    gsub(/ +/, " ", line)
    held = held == "" ? line : held " " line
    if (held ~ /^#/ ? held ~ /\\$/ : held !~ /[;{}:]$/)
        next
    if (held ~ /^[^#].*(= ?|\))\{/ && held !~ /;$/)
        next
    if (held ~ /^(typedef )?enum [^{}]*\{[^{}]*$/)
        next
    gsub(/\{ /, "{", held)
    gsub(/,? *\}/, "}", held)
    gsub(/\( /, "(", held)
    gsub(/" "/, "", held)
    show(held)
    held = ""
}
