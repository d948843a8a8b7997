@{
    PSSlack = 'latest'
}
