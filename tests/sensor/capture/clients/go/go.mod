module modelmeter/tests/client

go 1.19
