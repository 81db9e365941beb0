# A file as an array of bytes in C:   cmake -D INPUT=page.html -D OUTPUT=page.c -D NAME=serve_page -P embed.cmake
file(READ ${INPUT} bytes HEX)
string(LENGTH "${bytes}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "(................................................................)" "\\1\n" lines "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," lines "${lines}")
file(WRITE ${OUTPUT} "#include \"${NAME}.h\"\n\nconst unsigned char ${NAME}[] = {\n${lines}\n};\n"
                     "const size_t ${NAME}_size = ${size};\n")
